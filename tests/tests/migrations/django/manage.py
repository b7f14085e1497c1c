"""A Django project with one application, whose database is the URL in DATABASE_URL."""
import os
import sys
import urllib.parse
from pathlib import Path

from django.conf import settings
from django.core.management import execute_from_command_line

sys.path.insert(0, str(Path(__file__).parent))
url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    INSTALLED_APPS=["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
                    "django.contrib.sessions", "fleet"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SECRET_KEY="only a test",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "USER": url.username,
                           "PASSWORD": url.password, "HOST": url.hostname, "PORT": url.port}},
    SILENCED_SYSTEM_CHECKS=["admin.E403", "admin.E408", "admin.E409", "admin.E410"],
)
execute_from_command_line(sys.argv)
