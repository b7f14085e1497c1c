from django.db import migrations


class Migration(migrations.Migration):
    """Two columns of two tables, in one transaction."""
    dependencies = [("fleet", "0003_forget")]
    operations = [migrations.RemoveField("Rental", "note"), migrations.RemoveField("Customer", "phone")]
