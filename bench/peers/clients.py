"""Clients of an OpenAI-like streaming server: so many at once, one request each; times as a client sees them. Standard
library only, so that the clients cost little on a machine that they share with the server."""

import asyncio
import json
import time
from dataclasses import dataclass, field


@dataclass
class Answer:
    """Times in seconds since the moment that all requests were sent."""

    tokens: int = 0
    first: float = 0.0
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)


async def post_stream(host: str, port: int, path: str, body: dict, begin: float) -> Answer:
    """One request whose answer comes as server-sent events. Every event with text or tokens counts as one arrival."""
    payload = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(host, port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
    )
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + payload)
    await writer.drain()
    answer = Answer()
    status = await reader.readline()
    if b" 200 " not in status:
        rest = await reader.read(2000)
        raise RuntimeError(f"{path}: {status.decode().strip()}: {rest.decode(errors='replace')}")
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        now = time.monotonic() - begin
        event = json.loads(line[len(b"data: ") :])
        if "error" in event:
            raise RuntimeError(f"{path}: {event['error']}")
        # llama-server's last event repeats no token, and says how many there were.
        if "timings" in event and event.get("stop"):
            answer.tokens = event["timings"]["predicted_n"]
            answer.last = max(answer.last, now)
            continue
        if answer.first == 0.0:
            answer.first = now
        else:
            answer.gaps.append(now - answer.last)
        answer.last = now
        answer.tokens += 1
    writer.close()
    return answer


def all_at_once(host: str, port: int, path: str, bodies: list[dict]) -> dict:
    """Every body is sent at the same moment; the aggregate over all answers."""

    async def run() -> tuple[list[Answer], float]:
        begin = time.monotonic()
        answers = await asyncio.gather(*(post_stream(host, port, path, body, begin) for body in bodies))
        return answers, time.monotonic() - begin

    answers, wall = asyncio.run(run())
    firsts = [answer.first for answer in answers]
    gaps = [gap for answer in answers for gap in answer.gaps]
    return {
        "tokens": sum(answer.tokens for answer in answers),
        "wall_s": wall,
        "tokens_per_s": sum(answer.tokens for answer in answers) / wall,
        "ttft_p50_s": percentile(firsts, 0.5),
        "ttft_p95_s": percentile(firsts, 0.95),
        "itl_p50_s": percentile(gaps, 0.5),
    }


def percentile(values: list[float], share: float) -> float:
    """Nearest rank: the smallest value that at least this share of the values does not exceed."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)
    return ordered[max(int(rank), 1) - 1]
