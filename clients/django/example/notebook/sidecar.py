"""What the views use of the package. Behind a gateway the site knows nothing of sessions' ends: then these do nothing."""

from contextlib import nullcontext

from django.conf import settings

if settings.WITH_PACKAGE:
    from django_session_sidecar import hold, passive
else:

    def hold(request, *, purpose):
        """Nothing is held here; the page does it."""
        return nullcontext()

    def passive(view):
        """What is passive is said in the policy file."""
        return view


__all__ = ["hold", "passive"]
