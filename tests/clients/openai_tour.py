"""The README's tour with OpenAI's own Python client: models, chat, streaming, structured output, limits, errors.

python openai_tour.py URL KEY LIMITED_KEY      (LIMITED_KEY: of a tenant that may ask three times a minute)
"""

import asyncio
import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel, Field

url, key, limited_key = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
QUESTION = [{"role": "user", "content": "What does E-17 mean?"}]
INDUSTRIES = ["demo/finance", "demo/healthcare", "demo/legal", "demo/manufacturing"]


def ask(model="demo/finance", **settings):
    return client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=48, **settings)


def refused(kind, act):
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


def models():
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"base", *INDUSTRIES}, sorted(listed)
    legal = client.models.retrieve("demo/legal")
    assert legal.id == "demo/legal" and legal.owned_by == "demo" and legal.created > 0, legal
    assert legal.banyan["adapter_digest"].startswith("sha256:")
    pinned = f"demo/legal@{legal.banyan['adapter_digest']}"
    assert client.models.retrieve(pinned).id == pinned
    missing = refused(openai.NotFoundError, lambda: client.models.retrieve("demo/nothing"))
    assert (missing.code, missing.param) == ("model_not_found", "model"), missing


def every_industry_answers_in_its_own_way():
    answers = {model: ask(model) for model in ["base", *INDUSTRIES]}
    texts = [answer.choices[0].message.content for answer in answers.values()]
    assert all(texts) and len(set(texts)) == len(texts), texts
    for model, answer in answers.items():
        choice, usage = answer.choices[0], answer.usage
        assert answer.model == model and answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
        assert choice.finish_reason in ("stop", "length") and choice.message.role == "assistant"
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.prompt_tokens > 0
        assert (answer.banyan["adapter_digest"] is None) == (model == "base")
    again = ask("demo/finance")
    assert again.choices[0].message.content == answers["demo/finance"].choices[0].message.content
    assert 0 <= again.usage.prompt_tokens_details.cached_tokens <= again.usage.prompt_tokens


def streams_are_the_same_answer_in_pieces():
    whole = ask()
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content, text
    assert chunks[0].choices[0].delta.role == "assistant"
    *rest, closing, usage = chunks
    assert closing.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.choices == [] and usage.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in [*rest, closing]) and len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in ask(stream=True)), "usage comes only where it was asked for"
    with client.chat.completions.stream(model="demo/finance", messages=QUESTION, temperature=0, max_tokens=48) as stream:
        assert stream.get_final_completion().choices[0].message.content == text


def sampling_length_and_stop():
    def one(**settings):
        return client.chat.completions.create(model="demo/finance", messages=QUESTION, max_completion_tokens=24, **settings)

    seeded = [one(seed=7, temperature=1.5, top_p=0.9, presence_penalty=0.5, frequency_penalty=0.5) for _ in range(2)]
    assert seeded[0].choices[0].message.content == seeded[1].choices[0].message.content
    assert seeded[0].banyan["seed"] == 7
    short = client.chat.completions.create(model="demo/finance", messages=QUESTION, max_tokens=2)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 2)
    text = ask().choices[0].message.content
    word = text.split()[2]
    stopped = ask(stop=[word])
    assert stopped.choices[0].message.content == text[: text.index(word)] and stopped.choices[0].finish_reason == "stop"
    parts = [{"role": "user", "content": [{"type": "text", "text": "What does E-17 mean?"}]}]
    same = client.chat.completions.create(model="demo/finance", messages=parts, temperature=0, max_tokens=48)
    assert same.choices[0].message.content == text


def log_probabilities():
    chat = ask(logprobs=True, top_logprobs=3)
    tokens = chat.choices[0].logprobs.content
    assert len(tokens) == chat.usage.completion_tokens
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in tokens)
    assert all(token.token == token.top_logprobs[0].token for token in tokens), "greedy takes the most likely one"
    text = "".join(token.token for token in tokens)
    assert text.startswith(chat.choices[0].message.content), text
    streamed = [chunk.choices[0].logprobs for chunk in ask(stream=True, logprobs=True, top_logprobs=1)]
    assert sum(len(part.content) for part in streamed if part) == len(tokens)
    old = client.completions.create(model="base", prompt="What does", temperature=0, max_tokens=4, logprobs=2)
    logprobs = old.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 4
    assert logprobs.text_offset[0] == 0 and all(len(top) == 2 for top in logprobs.top_logprobs)


def completions():
    def complete(prompt, **settings):
        return client.completions.create(model="base", prompt=prompt, temperature=0, max_tokens=8, **settings)

    prompt = "<|im_start|>user\nWhat does E-17 mean?<|im_end|>\n<|im_start|>assistant\n"
    one = complete(prompt)
    assert one.object == "text_completion" and one.choices[0].text and one.usage.completion_tokens <= 8
    assert complete([prompt]).choices[0].text == one.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in complete(prompt, stream=True)) == one.choices[0].text
    ids = complete([5, 6, 7])
    assert ids.usage.prompt_tokens == 3 and complete([[5, 6, 7]]).choices[0].text == ids.choices[0].text
    assert refused(openai.BadRequestError, lambda: complete(["a", "b"])).param == "prompt"
    assert refused(openai.BadRequestError, lambda: complete("a", echo=True)).param == "echo"


class Notice(BaseModel):
    code: Literal["E-17", "E-18"]
    known: bool
    note: str = Field(max_length=12)


def structured_output():
    schema = Notice.model_json_schema() | {"additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "notice", "schema": schema, "strict": True}}
    held = client.chat.completions.create(model="demo/finance", messages=QUESTION, max_tokens=200, seed=1, response_format=form)
    Notice.model_validate_json(held.choices[0].message.content)
    parsed = client.chat.completions.parse(
        model="demo/finance", messages=QUESTION, max_tokens=200, seed=1, response_format=Notice
    )
    assert isinstance(parsed.choices[0].message.parsed, Notice)
    any_object = client.chat.completions.create(
        model="demo/finance",
        messages=QUESTION,
        seed=3,
        max_tokens=40,
        response_format={"type": "json_object"},
    )
    assert any_object.choices[0].message.content.startswith("{")


def what_is_wrong_is_said():
    bad = openai.OpenAI(base_url=f"{url}/v1", api_key="bn_wrong", max_retries=0)
    error = refused(openai.AuthenticationError, lambda: bad.models.list())
    assert (error.code, error.type) == ("invalid_api_key", "invalid_request_error") and error.request_id
    wrong = {
        "n": dict(n=2),
        "temperature": dict(extra_body={"temperature": -1}),
        "tools": dict(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        "logit_bias": dict(logit_bias={"5": 1}),
        "colour": dict(extra_body={"colour": "red"}),
        "top_logprobs": dict(top_logprobs=2),
        "stream_options": dict(stream_options={"include_usage": True}),
        "response_format.json_schema.schema": dict(response_format={"type": "json_schema", "json_schema": {"name": "x"}}),
    }
    for param, settings in wrong.items():
        error = refused(openai.BadRequestError, lambda settings=settings: client.chat.completions.create(
            model="demo/finance", messages=QUESTION, **settings
        ))
        assert error.param == param and error.type == "invalid_request_error", (param, error)
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(model="base", messages=image))
    assert error.param == "messages[0].content[0].type", error
    long = [{"role": "user", "content": "What does E-17 mean? " * 2000}]
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(model="base", messages=long))
    assert error.code == "context_length_exceeded", error
    error = refused(openai.NotFoundError, lambda: ask("demo/nothing"))
    assert error.code == "model_not_found", error
    error = refused(openai.NotFoundError, lambda: client.embeddings.create(model="base", input="a"))
    assert error.code == "unknown_url", error


def limits_are_told_and_kept():
    limited = openai.OpenAI(base_url=f"{url}/v1", api_key=limited_key, max_retries=0)

    def once():
        return limited.chat.completions.with_raw_response.create(model="base", messages=QUESTION, max_tokens=1)

    headers = [once().headers for _ in range(3)]
    assert [header["x-ratelimit-limit-requests"] for header in headers] == ["3"] * 3
    assert [header["x-ratelimit-remaining-requests"] for header in headers] == ["2", "1", "0"], headers
    for name in ("limit-tokens", "remaining-tokens", "reset-tokens", "reset-requests"):
        assert headers[0][f"x-ratelimit-{name}"], name
    error = refused(openai.RateLimitError, once)
    assert (error.code, error.type) == ("rate_limit_exceeded", "requests"), error
    assert 0 < int(error.response.headers["retry-after"]) <= 61
    assert limited.models.list().data, "only what generates is limited"


def a_repeat_is_the_same_answer():
    def named(**settings):
        return client.chat.completions.with_raw_response.create(
            model="demo/finance", messages=QUESTION, max_tokens=16, extra_headers={"Idempotency-Key": "tour-1"}, **settings
        )

    first, second = named(), named()
    assert first.parse().id == second.parse().id and second.headers["idempotent-replayed"] == "true"
    assert first.parse().choices == second.parse().choices and first.parse().usage == second.parse().usage
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    error = refused(openai.UnprocessableEntityError, lambda: named(temperature=0.5))
    assert error.code == "idempotency_mismatch", error


async def many_at_once():
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as many:

        async def one(model):
            stream = await many.chat.completions.create(
                model=model, messages=QUESTION, temperature=0, max_tokens=32, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        answers = await asyncio.gather(*(one(model) for model in INDUSTRIES * 3))
        assert answers[:4] * 3 == answers and len(set(answers)) == 4, answers
        # Whoever stops reading ends the answer.
        stream = await many.chat.completions.create(
            model="base", messages=QUESTION, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
        )
        await anext(stream)
        await stream.close()


STEPS = [
    models,
    every_industry_answers_in_its_own_way,
    streams_are_the_same_answer_in_pieces,
    sampling_length_and_stop,
    log_probabilities,
    completions,
    structured_output,
    what_is_wrong_is_said,
    limits_are_told_and_kept,
    a_repeat_is_the_same_answer,
]

if __name__ == "__main__":
    for step in STEPS:
        step()
        print(f"ok  {step.__name__.replace('_', ' ')}", flush=True)
    asyncio.run(many_at_once())
    print("ok  many at once")
    print(json.dumps({"client": f"openai {openai.__version__}", "steps": len(STEPS) + 1}))
