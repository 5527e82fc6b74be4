import asyncio
import sys

import promptgrad as pg
from promptgrad import nn

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))
chat = nn.Predict("history: History, question -> answer", types={"History": pg.History})


async def main():
    history = pg.History([{"question": "Are you open?", "answer": "From nine."}])
    async for event in chat.stream(history=history, question="And on Sunday?"):
        if isinstance(event, nn.FieldDelta):
            print(event.delta, end="")


asyncio.run(main())
