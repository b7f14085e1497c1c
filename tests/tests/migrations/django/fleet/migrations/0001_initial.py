import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Customer", [
            ("id", models.BigAutoField(primary_key=True)),
            ("name", models.CharField(max_length=80)),
            ("email", models.EmailField(unique=True)),
            ("phone", models.CharField(max_length=30, blank=True, default="")),
        ]),
        migrations.CreateModel("Feature", [
            ("id", models.BigAutoField(primary_key=True)),
            ("name", models.CharField(max_length=40, unique=True)),
        ]),
        migrations.CreateModel("Car", [
            ("id", models.BigAutoField(primary_key=True)),
            ("plate", models.CharField(max_length=12, unique=True)),
            ("price", models.DecimalField(max_digits=8, decimal_places=2)),
            ("features", models.ManyToManyField(to="fleet.feature")),
        ]),
        migrations.CreateModel("Rental", [
            ("id", models.BigAutoField(primary_key=True)),
            ("car", models.ForeignKey("fleet.car", on_delete=django.db.models.deletion.CASCADE)),
            ("customer", models.ForeignKey("fleet.customer", on_delete=django.db.models.deletion.PROTECT)),
            ("begins", models.DateTimeField()),
            ("note", models.TextField(blank=True, default="")),
        ]),
    ]
