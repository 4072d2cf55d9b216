"""`manage.py prepare`: a database with people in it."""

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand

PEOPLE = [("ada", False), ("grace", False), ("root", True)]


class Command(BaseCommand):
    """Makes the tables, and people whose passwords are their names."""

    help = "Makes the database, with ada, grace and root (of support), whose passwords are their names."
    # There may be no sidecar yet.
    requires_system_checks: list[str] = []

    def handle(self, *args: object, **options: object) -> None:
        """Does nothing twice."""
        call_command("migrate", verbosity=0)
        for name, is_support in PEOPLE:
            if not User.objects.filter(username=name).exists():
                User.objects.create_user(name, password=name, is_staff=is_support, is_superuser=is_support)
        self.stdout.write(f"{User.objects.count()} people can log in: ada, grace and root; each password is the name.")
