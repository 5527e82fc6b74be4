"""A language model whose attempts at one call get different answers."""

from promptgrad import lm


def numbered(*answers):
    """A language model with an answer, or an error, for each attempt; and the requests that it got."""
    asked = []

    def answer(request):
        asked.append(request)
        said = answers[request.replicate]
        if isinstance(said, Exception):
            raise said
        return f"[[ ## answer ## ]]\n{said}"

    answer.__annotations__["request"] = lm.Request
    return lm.FunctionLM(answer, name="numbered"), asked
