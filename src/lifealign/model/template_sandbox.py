"""The sandbox that renders chat templates: no access to anything outside, no clock, no randomness, no endless loops.

A chat template is a program written by whoever made the model. transformers renders it in a sandbox that protects the
interpreter, but two nested loops can run for days there, and a string that keeps doubling can take all memory. This
sandbox has the same features (``{% generation %}``, ``{% break %}``, ``tojson``, ``raise_exception``,
``strftime_now``) and a budget of loop steps and calls, of characters produced, and of processor time. The date is
always the same, and nothing is random.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

PINNED = datetime(2024, 7, 26)
"""The date that templates write instead of today's: the one that Llama's own templates fall back to."""
MOST_STEPS = 200_000
MOST_CHARACTERS = 10_000_000  # in addition to a hundred times the length of the messages
MOST_SECONDS = 10.0  # of processor time, so that a busy machine does not refuse a good template
LONGEST_NUMBER = 1_000_000  # as a width or count
WIDE = re.compile(r"\d{6,}|\*|:[^}]*\{")  # a format width that no template needs, or one that is an argument


class OverBudget(TemplateError):
    """A rendering that takes more steps, characters or time than any conversation needs."""


class _Budget(threading.local):
    """What a rendering may still spend; each thread has its own."""

    steps = characters = MOST_STEPS
    deadline = float("inf")

    def begin(self, given: int) -> None:
        self.steps, self.characters = MOST_STEPS, MOST_CHARACTERS + 100 * given
        self.deadline = time.thread_time() + MOST_SECONDS

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise OverBudget(f"it takes more than {MOST_STEPS:,} steps")
        if self.steps % 64 == 0 and time.thread_time() > self.deadline:
            raise OverBudget(f"it takes more than {MOST_SECONDS:.0f} seconds")

    def write(self, count: int) -> None:
        self.characters -= count
        if self.characters < 0:
            raise OverBudget(f"it produces more than {MOST_CHARACTERS:,} characters")

    def weigh(self, value: Any) -> None:
        """Charges for the text of a value before it is made: nested lists can be tiny in memory and endless as text."""
        if isinstance(value, str):
            self.write(len(value))
            return
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self.write(len(one))
            elif isinstance(one, Mapping):
                self.step(len(one))
                waiting += [*one.keys(), *one.values()]
            elif isinstance(one, list | tuple | set | frozenset):
                self.step(len(one))
                waiting += one
            elif isinstance(one, Namespace):
                waiting.append(one._Namespace__attrs)

    def refuse_huge(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, int) and abs(value) > LONGEST_NUMBER:
                raise OverBudget(f"it asks for a width or count above {LONGEST_NUMBER:,}")


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Compiles and renders chat templates; see the module's docstring.

    Example:
        >>> template = TemplateSandbox().from_string("{% for m in messages %}{{ m.content }}{% endfor %}")
        >>> template.environment.rendered(template, {"messages": [{"content": "Hi"}]})
        'Hi'
    """

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        self.budget = _Budget()
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=self._emit
        )
        self.filters["tojson"] = _tojson
        self.filters.pop("random")
        self.filters = {name: _bounded(name, function, self.budget) for name, function in self.filters.items()}
        self.filters["_counted"] = self._counted
        self.filters["_weighed"] = self._weighed
        self.globals.pop("lipsum")  # random text
        self.globals["raise_exception"] = _raise
        self.globals["dict"] = _Dictionaries()
        self.globals["namespace"] = _Names
        self.globals["strftime_now"] = _clock(PINNED)

    def rendered(self, template: Any, variables: Mapping[str, Any], *, given: int = 0, now: datetime = PINNED) -> str:
        """Renders a template that this sandbox compiled.

        Args:
            template: The template.
            variables: The variables that it sees.
            given: Number of characters in the messages among them.
            now: The date that ``strftime_now`` writes.

        Raises:
            OverBudget: If it exceeds its budget, as one that never ends does.
            TemplateError: If the template raises it, or is at fault in another way.
            Exception: Whatever else its expressions raise (``TypeError``, ``RecursionError``).
        """
        self.budget.begin(given)
        clock = {} if now == PINNED else {"strftime_now": _clock(now)}
        parts, size = [], 0
        for part in template.generate(**variables, **clock):
            size += len(part)
            if size > MOST_CHARACTERS + 100 * given:
                raise OverBudget(f"it produces more than {MOST_CHARACTERS:,} characters")
            parts.append(part)
        return "".join(parts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parses a template, and adds a counter to every loop and to every operand of ``~``."""
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            text = sum(len(data.data) for part in loop.body for data in _within(part, nodes.TemplateData))
            weight = nodes.Const(text, lineno=loop.lineno)
            loop.iter = nodes.Filter(loop.iter, "_counted", [weight], [], None, None, lineno=loop.lineno)
        for joined in list(tree.find_all(nodes.Concat)):
            joined.nodes = [
                nodes.Filter(one, "_weighed", [], [], None, None, lineno=one.lineno) for one in joined.nodes
            ]
        tree.set_environment(self)
        return tree

    @pass_context  # so that nothing is computed while compiling, before there is a budget
    def _counted(self, context: Context, iterable: Any, text: int) -> Any:
        budget = self.budget
        if hasattr(iterable, "__len__"):
            budget.step(len(iterable) + 1)
            budget.write(text * len(iterable))
            return iterable

        def counted() -> Iterator[Any]:
            for item in iterable:
                budget.step()
                budget.write(text)
                yield item

        return counted()

    @pass_context
    def _weighed(self, context: Context, value: Any) -> Any:
        self.budget.weigh(value)
        return value

    def _emit(self, value: Any) -> Any:
        if isinstance(value, str):
            self.budget.write(len(value))
        else:
            self.budget.weigh(value)
        return value

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        budget = __self.budget
        budget.step()
        if args or kwargs:
            budget.refuse_huge((*args, *kwargs.values()) if kwargs else args)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            budget.write(_most_made(owner, getattr(__obj, "__name__", ""), args))
        elif args:
            for argument in args:
                if isinstance(argument, list | tuple | range):
                    budget.step(len(argument))
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str):
            budget.write(len(result))
        return result

    def call_binop(  # noqa: D102
        self, context: Context, operator: str, left: Any, right: Any
    ) -> Any:
        budget = self.budget
        match operator, left, right:
            case "*", int(), int():
                _refuse_long(left.bit_length() + right.bit_length())
            case "*", (str() | list() | tuple()), int():
                budget.write(len(left) * max(0, right))
            case "*", int(), (str() | list() | tuple()):
                budget.write(len(right) * max(0, left))
            case "**", int(), int():
                _refuse_long(left.bit_length() * abs(right))
            case "%", str(), _:
                _refuse_wide(left)
                budget.weigh(right)
                budget.write(len(left))
            case "+", str(), str():
                budget.write(len(left) + len(right))
            case "+", list() | tuple(), list() | tuple():
                budget.step(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:  # noqa: D102
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        template = value.__self__

        @wraps(wrapped)
        def bounded(*args: Any, **kwargs: Any) -> str:
            _refuse_wide(template)
            self.budget.weigh([*args, *kwargs.values()])
            return wrapped(*args, **kwargs)

        return bounded


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text for masks, which are not used here: its body is just rendered."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dictionaries:
    """``dict`` of a template: makes dictionaries, but is not a class through which others could be reached."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Names(Namespace):
    """``namespace`` of a template, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)  # so that a name may be "self"
        for name in given:
            _Names._check(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _Names._check(name)
        Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace cannot have an attribute {name!r}")


def _bounded(name: str, function: Callable[..., Any], budget: _Budget) -> Callable[..., Any]:
    """Wraps a filter so that what it reads and makes is charged to the budget."""

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget.step()
        options = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, int | str)]
        budget.refuse_huge(options)
        texts = [value for value in args if isinstance(value, str | list | tuple | dict)]
        for value in texts:
            budget.weigh(value)
        for value in args:
            if isinstance(value, range):
                budget.step(len(value))
        if texts and isinstance(texts[0], str):
            if name == "format":
                _refuse_wide(texts[0])
            budget.write(_most_made(texts[0], name, texts[1:]))
        elif name == "join" and len(texts) > 1 and isinstance(texts[1], str):
            budget.write(len(texts[0]) * len(texts[1]))
        result = function(*args, **kwargs)
        if isinstance(result, str):
            budget.write(len(result))
        return result

    return bounded


def _most_made(text: str, method: str, args: Any) -> int:
    """Maximum number of characters that a method of a text may produce, which can exceed its input."""
    if method == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
        return len(text) + (text.count(args[0]) if args[0] else len(text) + 1) * len(args[1])
    if method == "join" and args and isinstance(args[0], list | tuple):
        return len(text) * len(args[0]) + sum(len(one) for one in args[0] if isinstance(one, str))
    if method == "indent":
        return len(text) + text.count("\n") * 1000
    return len(text)


def _refuse_long(bits: int) -> None:
    if bits > 4096:
        raise OverBudget("it computes a number of more than 4096 bits")


def _refuse_wide(template: str) -> None:
    if WIDE.search(template):
        raise OverBudget("it formats with a width of six digits or more, or one that is not written out")


def _within(node: nodes.Node, kind: type[nodes.TemplateData]) -> Iterator[nodes.TemplateData]:
    if isinstance(node, kind):
        yield node
    yield from node.find_all(kind)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _clock(now: datetime) -> Callable[[str], str]:
    def strftime_now(format: str) -> str:
        _refuse_wide(format)
        return now.strftime(format)

    return strftime_now
