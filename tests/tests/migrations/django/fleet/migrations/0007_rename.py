from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("fleet", "0006_drop_model")]
    operations = [migrations.RenameField("Car", "plate", "number"), migrations.RenameModel("Rental", "Booking")]
