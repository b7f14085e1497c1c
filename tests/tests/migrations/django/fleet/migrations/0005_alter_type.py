from django.db import migrations, models


class Migration(migrations.Migration):
    """Cents are rounded away."""
    dependencies = [("fleet", "0004_drop_fields")]
    operations = [migrations.AlterField("Car", "price", models.IntegerField())]
