import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("fleet", "0001_initial")]
    operations = [
        migrations.AddField("Rental", "extra", models.JSONField(default=dict)),
        migrations.AddField("Car", "notes", models.TextField(blank=True, default="")),
        migrations.AddIndex("Rental", models.Index(fields=["begins"], name="rental_begins")),
        migrations.CreateModel("Damage", [
            ("id", models.BigAutoField(primary_key=True)),
            ("car", models.ForeignKey("fleet.car", on_delete=django.db.models.deletion.CASCADE)),
            ("text", models.TextField()),
        ]),
    ]
