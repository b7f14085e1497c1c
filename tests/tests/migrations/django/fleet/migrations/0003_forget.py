from django.db import migrations


def forget(apps, schema_editor):
    apps.get_model("fleet", "Rental").objects.filter(id__lte=2000).delete()


class Migration(migrations.Migration):
    """Rows are lost by code, not by definitions."""
    dependencies = [("fleet", "0002_more")]
    operations = [migrations.RunPython(forget, migrations.RunPython.noop)]
