"""What the medians of a result say of each other, as tables."""


def change(ours, theirs):
    return f"{(ours / theirs - 1) * 100:+.0f} %" if theirs else "-"


def times_less(ours, theirs):
    if not ours or not theirs:
        return "-"
    return f"{theirs / ours:.1f} x less" if ours < theirs else f"{ours / theirs:.1f} x more"


def added(ours, theirs):
    return f"{ours - theirs:+.0f} us"


def tables(rows):
    """The text of all tables that these rows can fill."""
    at = {(row["scenario"], row["gateway"], row["way"]): row["median"] for row in rows}
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    gateways = dict.fromkeys(row["gateway"] for row in rows)
    others = [name for name in gateways if name not in ("direct", "relay", "flashlane") and not name.endswith(" TLS")]
    text = []

    def cells(scenario, ours, theirs, measures):
        ours, theirs = at.get((scenario, *ours)), at.get((scenario, *theirs))
        if not ours or not theirs:
            return None
        both = [(measure, how) for measure, how in measures]
        return [how(ours[measure], theirs[measure]) if measure in ours and measure in theirs else "-" for measure, how in both]

    def table(title, wanted, pairs, measures):
        lines = []
        for scenario in (scenario for scenario in scenarios if scenario.split(":")[0] in wanted):
            for ours, theirs in pairs:
                values = cells(scenario, ours, theirs, measures)
                if values:
                    lines.append([scenario, " ".join(ours), " ".join(theirs)] + values)
        if lines:
            heads = ["scenario", "of", "against"] + [measure.replace("_", " ") for measure, _ in measures]
            text.append(f"\n{title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
            text.extend(f"| {' | '.join(line)} |" for line in lines)

    ways = ("chat", "responses", "websocket")
    ours = [("flashlane", way) for way in ways]
    to_relay = [(our, ("relay", "chat")) for our in ours]
    to_others = [(our, (other, way)) for other in others for our in ours for way in ways if our[1] == way or (way == "responses" and our[1] == "websocket")]
    table("beside the relay", ("one", "paced"), to_relay, [("ttft_p50_us", added), ("token_p50_us", added), ("cpu_us_per_token", times_less)])
    table("beside other gateways", ("one", "joined", "flat", "paced"), to_others, [("cpu_us_per_token", times_less), ("token_p99_us", times_less), ("tokens_per_s", change)])
    table("requests, beside other gateways", ("request",), to_others, [("cpu_us_per_request", times_less), ("p50_us", times_less), ("p99_us", times_less)])
    ways = [way + deflate for deflate in ("", ", deflate") for way in ("C websocket, cold", "D websocket, warm")]
    plain = ("A new connection", "B kept alive")
    # Over TLS each is a gateway of its own.
    pairs = [(("flashlane" + tls, our), (gateway + tls, way)) for tls in ("", " TLS") for our in ways for gateway in ("baseline", "flashlane") for way in plain]
    measures = ["overhead_ms", "less_one_rtt_ms", "first_ttft_overhead_ms", "ttft_overhead_ms", "wall_ms", "up_bytes_per_turn"]
    table("the session beside plain HTTP", ("rollout",), pairs, [(measure, change) for measure in measures])
    return "\n".join(text)
