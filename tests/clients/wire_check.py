"""Whether a client has really taken the transport that it was told to take, as the gateway counts it."""

from rig import Flashlane, fetch, poll_until


def websocket_bytes(gateway: Flashlane) -> float:
    """Bytes over WebSockets that have ended, both ways."""
    rows = (row for row in fetch(f"{gateway.admin_url}/metrics").splitlines() if row.startswith("flashlane_websocket_bytes_total"))
    return sum(float(row.split()[-1]) for row in rows)


def a_websocket_was_used(gateway: Flashlane, bytes_before: float) -> None:
    """Waits until a WebSocket that carried more than its handshake has ended."""
    poll_until(lambda: websocket_bytes(gateway) > bytes_before + 1000, 5, "bytes over a WebSocket")
