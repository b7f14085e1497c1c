"""What an application does all day: reads, adds, changes and takes away a few rows at a time."""
from datetime import datetime, timezone

from django.core.management.base import BaseCommand
from django.db import IntegrityError, models, transaction
from fleet.models import Car, Customer, Damage, Feature, Rental


class Command(BaseCommand):
    def handle(self, *args, **options):
        new = Feature.objects.create(name="roof box")
        for number in range(40):
            customer = Customer.objects.create(name=f"new {number}", email=f"new-{number}@example.org")
            car, _ = Car.objects.get_or_create(plate=f"N-{number}", defaults={"price": 30})
            car.features.add(new)
            with transaction.atomic():
                rental = Rental.objects.create(car=car, customer=customer, begins=datetime(2026, 3, 1, tzinfo=timezone.utc))
                rental.note = "paid"
                rental.save()
            assert Rental.objects.select_related("car", "customer").get(pk=rental.pk).car.plate == f"N-{number}"
            Car.objects.filter(pk=car.pk).update(price=models.F("price") + 1)
        Damage.objects.bulk_create(Damage(car=car, text=f"scratch {number}") for number in range(30))
        assert Rental.objects.filter(note="paid").aggregate(n=models.Count("id"))["n"] == 40
        assert len(list(Rental.objects.filter(customer__name__startswith="new").iterator())) == 40
        try:
            with transaction.atomic():
                Customer.objects.create(name="twice", email="new-1@example.org")
        except IntegrityError:
            pass
        for rental in Rental.objects.filter(note="paid")[:20]:
            rental.delete()
        Car.objects.get(plate="N-7").delete()
        assert Car.objects.filter(features=new).count() == 39
