import asyncio
import sys

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))


class Chat(dspy.Signature):
    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


chat = dspy.Predict(Chat)
listeners = [dspy.streaming.StreamListener(signature_field_name="answer")]


async def main():
    history = dspy.History(messages=[{"question": "Are you open?", "answer": "From nine."}])
    async for event in dspy.streamify(chat, stream_listeners=listeners)(history=history, question="And on Sunday?"):
        if isinstance(event, dspy.streaming.StreamResponse):
            print(event.chunk, end="")


asyncio.run(main())
