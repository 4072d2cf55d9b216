"""The policies of a run: short, so that thousands of sessions live and end within minutes."""

from .history import Policy

POLICIES = {
    "default": Policy(idle=4.0, absolute=60.0, leads=[1.5]),
    "slow": Policy(idle=8.0, absolute=60.0, leads=[2.0, 1.0]),
    "brief": Policy(idle=5.0, absolute=14.0, leads=[1.0]),
    "kiosk": Policy(idle=6.0, absolute=60.0, leads=[1.0], leave=2.0, lost=3.0),
    "capped": Policy(idle=5.0, absolute=60.0, leads=[1.0], per_subject=2),
    "strict": Policy(idle=5.0, absolute=60.0, leads=[1.0], at_most=True),
}
# How often each is chosen.
SHARES = {"default": 5, "slow": 3, "brief": 2, "kiosk": 2, "capped": 2, "strict": 2}
# The longest that a visit ever asks to stay.
LONGEST_HOLD = 3.0
LONGEST_EXTENSION = 10.0
# After this long without a call every session is over.
LONGEST_LIFE = max(policy.idle for policy in POLICIES.values()) + max(LONGEST_HOLD, LONGEST_EXTENSION - 8.0)


def toml() -> str:
    """The policy file."""
    lines = []
    for name, policy in POLICIES.items():
        lines += [f"[policy.{name}]", f'idle_timeout = "{_span(policy.idle)}"', f'absolute_timeout = "{_span(policy.absolute)}"']
        lines += [f"warn_before = [{', '.join(map(_quoted, policy.leads))}]", 'absolute_warn_before = ["2s"]']
        lines += ["at_most = true"] if policy.at_most else []
        lines += [f"max_sessions_per_subject = {policy.per_subject}", 'at_subject_cap = "end-oldest"'] if policy.per_subject else []
        if policy.leave:
            lines += [f'presence = {{ leave_grace = "{_span(policy.leave)}", lost_grace = "{_span(policy.lost)}" }}']
    return "\n".join(lines) + "\n"


def _span(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _quoted(seconds: float) -> str:
    return f'"{_span(seconds)}"'
