from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("fleet", "0005_alter_type")]
    operations = [migrations.DeleteModel("Damage"), migrations.RemoveField("Car", "features"), migrations.DeleteModel("Feature")]
