"""What a site may want to hear of."""

from django.dispatch import Signal

session_ended = Signal()
"""This site met the end of a session: a request came with it, or its person logged out. Arguments: `session_ref`, `reason` (an
EndReason; None if nobody knows any more), `user_id` (as text; "" if the Django session was gone already), `request`. Ends that no
request meets are told by the sidecar's own stream."""

session_adopted = Signal()
"""A Django session that the sidecar did not know goes on under it. Arguments: `session_ref`, `user_id`, `request`."""
