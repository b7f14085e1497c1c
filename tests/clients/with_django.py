"""Django through the gateway: migrations that add pass, also looked at with inspectdb; one that drops is held."""
import io
import sys
import tempfile
import urllib.parse
from pathlib import Path

url = urllib.parse.urlsplit(sys.argv[1])
folder = Path(tempfile.mkdtemp())
(folder / "shop" / "migrations").mkdir(parents=True)
(folder / "shop" / "__init__.py").write_text("")
(folder / "shop" / "migrations" / "__init__.py").write_text("")
(folder / "shop" / "models.py").write_text("from django.db import models\nclass Item(models.Model):\n    name = models.CharField(max_length=40, unique=True)\n    price = models.IntegerField(default=0)\n")
sys.path.insert(0, str(folder))

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["shop"],  # migrations of Django's own applications drop columns, which is held
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "USER": url.username,
                           "PASSWORD": url.password, "HOST": url.hostname, "PORT": url.port}},
)
django.setup()
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, models, transaction
from shop.models import Item

call_command("makemigrations", "shop", verbosity=0)
call_command("migrate", verbosity=0)
call_command("migrate", verbosity=0)  # nothing left to do
Item.objects.create(name="one")
with transaction.atomic():
    Item.objects.create(name="two", price=2)
    try:
        with transaction.atomic():
            Item.objects.create(name="one")
    except IntegrityError:
        pass
assert Item.objects.count() == 2
with transaction.atomic():  # outside of one, Django declares its cursor WITH HOLD, which is an escape
    assert [item.name for item in Item.objects.order_by("id").iterator()] == ["one", "two"]
Item.objects.filter(name="two").update(price=models.F("price") + 1)
assert Item.objects.get(name="two").price == 3
models_text = io.StringIO()
call_command("inspectdb", "shop_item", stdout=models_text)
assert "class ShopItem" in models_text.getvalue()
with connection.schema_editor() as editor:
    field = models.CharField(max_length=10, null=True)
    field.set_attributes_from_name("colour")
    editor.add_field(Item, field)
try:
    with connection.schema_editor() as editor:
        editor.delete_model(Item)
except DatabaseError as error:
    assert error.__cause__.sqlstate == "RPH01", error.__cause__.sqlstate
else:
    raise AssertionError("a table was dropped")
connection.close()
assert Item.objects.count() == 2
print("all of it works")
