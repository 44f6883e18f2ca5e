"""The README's tour with `grpcio` and the published protos alone, compiled here.

python grpc_tour.py ADDRESS KEY PROTO_DIR SCRATCH_DIR
"""

import sys
import uuid
from pathlib import Path

import grpc
from grpc_tools import protoc

address, key, protos, scratch = sys.argv[1:]
sources = sorted(str(path) for path in Path(protos).glob("banyan/v1/*.proto"))
failed = protoc.main(
    ["protoc", f"-I{protos}", f"-I{Path(protoc.__file__).parent / '_proto'}", f"--python_out={scratch}",
     f"--grpc_python_out={scratch}", *sources]
)
assert failed == 0, "the protos do not compile"
sys.path.insert(0, scratch)
from banyan.v1 import inference_pb2 as v1, inference_pb2_grpc  # noqa: E402

METADATA = [("authorization", f"Bearer {key}")]
INDUSTRIES = ["demo/finance", "demo/healthcare", "demo/legal", "demo/manufacturing"]


def request(model, **fields):
    message = v1.ChatMessage(role="user", content="What does E-17 mean?")
    fields.setdefault("sampling", v1.Sampling(temperature=0))
    fields.setdefault("max_tokens", 48)
    return v1.GenerateRequest(model=model, chat=v1.ChatMessages(messages=[message]), **fields)


def generate(stub, asked, **call):
    steps = list(stub.Generate(asked, metadata=METADATA, **call))
    assert steps[-1].HasField("finish") and not any(step.HasField("finish") for step in steps[:-1])
    return "".join(step.text for step in steps), [token for step in steps for token in step.tokens], steps[-1].finish


def refused(code, act):
    try:
        act()
    except grpc.RpcError as error:
        assert error.code() == code, error
        names = {name for name, _ in error.trailing_metadata()}
        assert "grpc-status-details-bin" in names, names
        return error
    raise AssertionError(f"not refused with {code}")


def main():
    with grpc.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        listed = stub.ListModels(v1.ListModelsRequest(), metadata=METADATA)
        assert {model.name for model in listed.models} == {"base", *INDUSTRIES}
        answers = {model: generate(stub, request(model)) for model in ["base", *INDUSTRIES]}
        texts = [text for text, _, _ in answers.values()]
        assert all(texts) and len(set(texts)) == len(texts), texts
        for model, (_, tokens, finish) in answers.items():
            named = stub.GetModel(v1.GetModelRequest(name=model), metadata=METADATA)
            assert finish.receipt.adapter_digest == named.adapter_digest
            assert finish.usage.completion_tokens == len(tokens)
        print("ok  models and answers", flush=True)

        counted = stub.CountTokens(v1.CountTokensRequest(model="base", chat=request("base").chat), metadata=METADATA)
        assert counted.tokens == answers["base"][2].usage.prompt_tokens
        text, tokens, _ = generate(stub, request("demo/legal", logprobs=2))
        assert all(len(token.top_logprobs) == 2 and token.text for token in tokens)
        form = v1.ResponseFormat(regex="(yes|no), [A-Z]-[0-9]{2}")
        text, _, _ = generate(stub, request("demo/finance", response_format=form))
        assert text.split(", ")[0] in ("yes", "no"), text
        print("ok  log-probabilities and structured output", flush=True)

        name = str(uuid.uuid4())
        unseeded = request("demo/finance", client_request_id=name, sampling=v1.Sampling(temperature=1))
        first, second = generate(stub, unseeded), generate(stub, unseeded)
        assert (first[0], first[2]) == (second[0], second[2]), "a repeat is the same answer"
        other = request("demo/legal", client_request_id=name)
        assert "another request" in refused(grpc.StatusCode.ALREADY_EXISTS, lambda: generate(stub, other)).details()
        print("ok  repeats", flush=True)

        refused(grpc.StatusCode.NOT_FOUND, lambda: generate(stub, request("demo/nothing")))
        refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: generate(stub, request("base", max_tokens=10**6)))
        refused(grpc.StatusCode.UNAUTHENTICATED, lambda: list(stub.Generate(request("base"))))
        late = request("base", ignore_eos=True, max_tokens=480)
        call = stub.Generate(late, metadata=METADATA)
        next(call)
        assert call.cancel()
        print("ok  refusals and cancellation", flush=True)


main()
