"""Chat templates are rendered as transformers does it, but always come to an end and never know what day it is."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from lifealign.model.template_sandbox import OverBudget, TemplateSandbox

GROWS = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}BODY{% endfor %}"
NESTS = "{% set ns = namespace(x=['lol']) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
ENDLESS = {
    "a long range": "{% for i in range(10**9) %}x{% endfor %}",
    "two loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a loop over a filter": "{% for i in range(999) %}{% for j in range(999)|map('string') %}{% endfor %}{% endfor %}",
    "a filter in a loop": "{% for i in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
    "much text in a loop": "{% for i in range(99999) %}" + "y" * 20000 + "{% endfor %}",
    "much text in a variable": "{% set x %}{% for i in range(99999) %}" + "y" * 20000 + "{% endfor %}{% endset %}",
    "doubling by ~": GROWS.replace("BODY", "{% set ns.x = ns.x ~ ns.x %}"),
    "doubling by +": GROWS.replace("BODY", "{% set ns.x = ns.x + ns.x %}"),
    "doubling by set": GROWS.replace("BODY", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
    "doubling by a method": GROWS.replace("BODY", "{% set ns.x = ns.x.replace('a', 'aa') %}"),
    "doubling by a filter": GROWS.replace("BODY", "{% set ns.x = ns.x|replace('a', 'aa') %}"),
    "a repeated text": "{{ 'a' * 10**10 }}",
    "a power": "{{ 10**(10**10) }}",
    "a wide filter": "{{ 'a'|center(10**10) }}",
    "a wide method": "{{ 'a'.ljust(10**10) }}",
    "a wide %": "{{ '%9999999999d' % 1 }}",
    "a wide format": "{{ '{:9999999999}'.format(1) }}",
    "a wide format by argument": "{{ '{:{w}}'.format(1, w=10**10) }}",
    "lists in lists as json": NESTS + "{{ ns.x|tojson }}",
    "lists in lists as text": NESTS + "{{ ns.x }}",
    "lists in lists joined": NESTS + "{{ ns.x ~ 'a' }}",
    "lists in lists as string": NESTS + "{{ ns.x|string }}",
    "a macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
}
FEATURES = {
    "trimmed blocks": "  {% if true %}\n  a\n  {% endif %}\n b",
    "loop controls": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}"
    "{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "loop variables": "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}"
    "{{ loop.length }}{% endfor %}",
    "loops over what a filter gives": "{% for m in messages|selectattr('role', 'equalto', 'user') %}{{ loop.index }}"
    "{{ m.content }}{{ loop.last }}{{ loop.length }}{% endfor %}",
    "slices": "{% for m in messages[1:] %}{{ m['content'] }}{% else %}none{% endfor %}{{ messages[::-1][0].role }}",
    "generation": "{% generation %}{{ messages[0].content }}{% endgeneration %}!",
    "json": "{{ {'a': '<é>', 'b': [1, none, true]}|tojson }}{{ messages|tojson(indent=2) }}",
    "namespaces": "{% set ns = namespace(self=1, x='a') %}{% for i in range(3) %}{% set ns.x = ns.x ~ i %}"
    "{% endfor %}{{ ns.x }}",
    "dictionaries": "{{ dict(a=1).a }}{{ dict.fromkeys(['b'], 2)['b'] }}",
    "macros": "{% macro say(m, loud=false) %}{{ m.content|upper if loud else m.content }}{% endmacro %}"
    "{{ say(messages[0], loud=true) }}",
    "tests": "{{ messages is iterable }}{{ x is defined }}{{ tools is none }}{{ 'a' in messages[0].content }}",
    "strings": "{{ messages[0].content.split('b')[-1].strip() ~ ('%s-%d' % ('a', 3)) ~ '{}'.format(2) + 'x' * 3 }}",
    "recursion": "{% for i in [[1, [2]], [3]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}",
    "variables of the call": "{{ bos_token }}{{ add_generation_prompt }}{{ missing }}{{ none }}",
}
MESSAGES = [{"role": "user", "content": " a <b> c "}, {"role": "assistant", "content": "d"}]
VARIABLES = {"messages": MESSAGES, "tools": None, "documents": None, "add_generation_prompt": True, "bos_token": "<s>"}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_template_without_end_is_given_up(source: str) -> None:
    sandbox, start = TemplateSandbox(), time.thread_time()
    with pytest.raises(OverBudget):
        sandbox.rendered(sandbox.from_string(source), {})
    assert time.thread_time() - start < 8
    assert sandbox.rendered(sandbox.from_string("{{ 1 }}"), {}) == "1"  # each rendering has a budget of its own


@pytest.mark.parametrize("source", FEATURES.values(), ids=FEATURES.keys())
def test_all_else_is_as_transformers_renders_it(source: str) -> None:
    sandbox = TemplateSandbox()
    (expected,), _ = render_jinja_template(
        [MESSAGES], chat_template=source, add_generation_prompt=True, bos_token="<s>"
    )
    assert sandbox.rendered(sandbox.from_string(source), VARIABLES) == expected


def test_the_date_is_always_the_same_one_and_nothing_is_random() -> None:
    sandbox = TemplateSandbox()
    template = sandbox.from_string("{{ strftime_now('%d %b %Y %H:%M') }}")
    assert sandbox.rendered(template, {}) == "26 Jul 2024 00:00"
    assert sandbox.rendered(template, {}, now=datetime(2031, 11, 2)) == "02 Nov 2031 00:00"
    for source in ("{{ [1, 2]|random }}", "{{ lipsum() }}"):
        with pytest.raises(TemplateError):
            sandbox.rendered(sandbox.from_string(source), {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.mro() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{% set ns = namespace(_x=1) %}",
        "{{ '{0.__class__.mro}'.format(1) }}",
        "{{ dict.__subclasses__() }}",
    ],
)
def test_there_is_no_way_out(source: str) -> None:
    sandbox = TemplateSandbox()
    with pytest.raises(TemplateError):
        sandbox.rendered(sandbox.from_string(source), VARIABLES)
