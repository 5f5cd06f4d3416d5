"""A chat model that needs no network and always gives the same answer to the same conversation.

It stands where your own model would: `model = init_chat_model("anthropic:claude-sonnet-5")`. It knows
only what the messages it is given say, so an example that remembers really has a memory.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

_NAME = re.compile(r"\b(?:i'm|i am|my name is|the user is called) (\w+)", re.IGNORECASE)
_FACT = re.compile(r"^remember that (.+?)\.?$", re.IGNORECASE)
_MEMORY = "You remember: "
_POEM = re.compile(r"\b(?:poem about|same but for|about) (\w+)", re.IGNORECASE)


def reply_to(messages: Sequence[BaseMessage]) -> str:
    """Return the model's answer to a conversation: a pure function of what the messages say."""
    asked = messages[-1].text
    told = [m.text for m in messages if isinstance(m, HumanMessage | SystemMessage)]
    names = [found[1] for text in told if (found := _NAME.search(text))]
    name = names[-1] if names else None

    if isinstance(messages[-1], ToolMessage):
        return "I'll remember that."
    if "summary" in asked.lower():
        requests = [
            m.text.rstrip(".") for m in messages[:-1] if isinstance(m, HumanMessage) and _POEM.search(m.text)
        ]
        about = "; ".join(requests) or "nothing yet"
        return f"The user is called {name or 'unknown'}. Requests so far: {about}."
    if "my name?" in asked.lower():
        return f"Your name is {name}." if name else "I don't know your name: you have not told me."
    if poem := _POEM.search(asked):
        return f"Soft are the {poem[1]}, and quiet the day; they dream in the sun while the hours drift away."
    if _NAME.search(asked):
        return f"Hi {name}! How can I help?"
    memories = [text.removeprefix(_MEMORY) for text in told if text.startswith(_MEMORY)]
    if memories:
        return f"I remember: {memories[-1]}" if memories[-1] else "I know nothing about you yet."
    return f"I hear you. Messages I can see: {len(messages)}."


class OfflineChatModel(BaseChatModel):
    """A deterministic chat model with the three ways to call one: sync, async and streaming."""

    @property
    def _llm_type(self) -> str:
        return "tenure-examples-offline"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with a tool that it calls with what it is told to remember."""
        names = [tool.name for tool in tools if isinstance(tool, BaseTool)]
        return self.bind(tool_names=names)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = messages[-1]
        fact = _FACT.search(asked.text) if isinstance(asked, HumanMessage) else None
        if fact and "tool_names" in kwargs:
            (name,) = kwargs["tool_names"]
            call = {"name": name, "args": {"fact": fact[1]}, "id": f"call-{len(messages)}"}
            return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=[call]))])
        return ChatResult(generations=[ChatGeneration(message=AIMessage(reply_to(messages)))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for token in re.findall(r"\S+\s*", reply_to(messages)):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=token))
            if run_manager:
                run_manager.on_llm_new_token(token, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


model = OfflineChatModel()
