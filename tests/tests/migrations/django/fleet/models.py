"""What the application works with once its first two migrations ran. Migrations are written by hand, one for each thing that may happen."""
from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=80)
    email = models.EmailField(unique=True)
    phone = models.CharField(max_length=30, blank=True, default="")


class Feature(models.Model):
    name = models.CharField(max_length=40, unique=True)


class Car(models.Model):
    plate = models.CharField(max_length=12, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    notes = models.TextField(blank=True, default="")
    features = models.ManyToManyField(Feature)


class Rental(models.Model):
    car = models.ForeignKey(Car, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT)
    begins = models.DateTimeField()
    note = models.TextField(blank=True, default="")
    extra = models.JSONField(default=dict)


class Damage(models.Model):
    car = models.ForeignKey(Car, on_delete=models.CASCADE)
    text = models.TextField()
