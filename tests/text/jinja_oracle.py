#!/usr/bin/env python3
"""Compares the template interpreter with Jinja2, set up as transformers sets it up.

usage: jinja_oracle.py TEMPLATE_BATCH TEMPLATES_DIR SNIPPETS [COUNT [SEED]]

COUNT random conversations go through every template of TEMPLATES_DIR, and every snippet of SNIPPETS (separated by lines of
"===") is rendered with a few sets of variables. Texts must be equal; where Jinja2 fails, the interpreter must fail, too.
Where the interpreter says that it does not support something (error code 2), a snippet must be marked "unsupported".
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jinja_environment

NOW = 1764576000
WORDS = ["", " ", "hello", "Ünïcode", "日本語", "🙂 emoji", "line\nbreak", "\n\nlead", "trail\n \n", "tab\there", "a'b", 'say "hi"', "back\\slash",
         "<think>x</think>y", "<mm:think>deep</mm:think>\nanswer", "</mm:think>", "]~b]user", "[e~[", "]<]minimax[>[", "{{ x }}", "{% if %}",
         "a" * 300, "\u00a0nbsp\u2003", "É", "ß", "<tool_response>r</tool_response>", "null", "1.0", "\x7f", "\u200b", "nul\x01", "&<>", "Σ ΑΣ", "İ"]
NAMES = ["get_weather", "search", "f", "run-code", "名", "a.b"]
KEYS = ["city", "n", "items", "get", "values", "x", "Z", "a_b", "keys", "名", "content"]
NUMBERS = [0, 1, -1, 7, 42, 2**53, -2**63, 2**63 - 1, 0.0, -0.0, 1.0, 0.1, 1e16, 1e-5, 123456789.125, 1e300, 5e-324, 1.5, 3.0e-7, 1e22, 2.5]


def text(rng):
    return "".join(rng.choice(WORDS) for _ in range(rng.choice([0, 1, 1, 1, 2, 3])))


def value(rng, depth=0):
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind == 2:
        return rng.choice(NUMBERS)
    if kind < 6:
        return text(rng)
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def schema(rng, depth=0):
    kind = rng.choice(["string", "number", "integer", "boolean", "object", "array", "null"]) if depth < 3 else "string"
    out = {"type": kind}
    if rng.random() < 0.3:
        out["description"] = text(rng)
    if rng.random() < 0.1:
        out["type"] = ["string", "null"]
    elif kind == "object":
        out["properties"] = {rng.choice(KEYS): schema(rng, depth + 1) for _ in range(rng.randrange(4))}
        if rng.random() < 0.5:
            out["required"] = rng.sample(KEYS, 2)
    elif kind == "array" and rng.random() < 0.8:
        out["items"] = schema(rng, depth + 1)
    elif kind == "string" and rng.random() < 0.3:
        out["enum"] = [text(rng) for _ in range(2)]
    return out


def tool(rng):
    function = {"name": rng.choice(NAMES), "parameters": {"type": "object", "properties": {k: schema(rng) for k in rng.sample(KEYS, 2)}}}
    if rng.random() < 0.8:
        function["description"] = text(rng)
    return {"type": "function", "function": function}


def content(rng):
    kind = rng.random()
    if kind < 0.8:
        return text(rng)
    if kind < 0.85:
        return None
    return [{"type": "text", "text": text(rng)} if rng.random() < 0.9 else {"type": "image"} for _ in range(rng.randrange(3))]


def message(rng):
    role = rng.choice(["user", "user", "assistant", "assistant", "tool", "system"] + ["developer"] * (rng.random() < 0.05))
    out = {"role": role, "content": content(rng)}
    if role == "assistant":
        if rng.random() < 0.4:
            out["reasoning_content"] = rng.choice([None, text(rng), text(rng)])
        if rng.random() < 0.4:
            calls = [{"id": "c%d" % i, "type": "function", "function": {"name": rng.choice(NAMES), "arguments": {
                rng.choice(KEYS): value(rng) for _ in range(rng.randrange(4))}}} for i in range(rng.choice([1, 1, 2, 3]))]
            out["tool_calls"] = rng.choice([calls, calls, calls, [], None])
    if role == "tool" and rng.random() < 0.5:
        out["name"] = rng.choice(NAMES)
    if role == "tool" and rng.random() < 0.2:
        out["content"] = value(rng)
    if rng.random() < 0.02:
        del out["content"]
    return out


def conversation(rng):
    messages = [message(rng) for _ in range(rng.choice([0, 1, 2, 3, 5, 8]))]
    if rng.random() < 0.5:
        messages.insert(0, {"role": "system", "content": text(rng)})
    variables = {"messages": messages, "tools": [tool(rng) for _ in range(rng.choice([1, 2]))] if rng.random() < 0.5 else None,
                 "documents": None, "add_generation_prompt": rng.random() < 0.5, "bos_token": "<s>", "eos_token": "</s>"}
    for name, choices in (("thinking_mode", ["enabled", "disabled", "adaptive", "odd"]), ("enable_thinking", [True, False]),
                          ("keep_reasoning", [True, False]), ("date", ["today"]), ("date_string", ["01 Jan"]), ("limit", [0, 2, "3"]),
                          ("tools_in_user_message", [True, False]), ("identity", ["", "I am"])):
        if rng.random() < 0.3:
            variables[name] = rng.choice(choices)
    return variables


def expected(environment, cache, source, variables):
    try:
        if source not in cache:
            cache[source] = environment.from_string(source)
        return cache[source].render(**variables), None
    except RecursionError:
        raise
    except Exception as error:  # whatever Jinja2 or Python raise
        return None, "%s: %s" % (type(error).__name__, error)


def main():
    batch, templates, snippets = sys.argv[1:4]
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 400
    rng = random.Random(int(sys.argv[5]) if len(sys.argv) > 5 else 1)
    cases = []
    sources = {path.name: path.read_text() for path in sorted(pathlib.Path(templates).glob("*.jinja"))}
    for _ in range(count):
        variables = conversation(rng)
        cases += [(name, source, variables) for name, source in sources.items()]
    fixed = json.loads(pathlib.Path(snippets).with_suffix(".json").read_text())
    for i, snippet in enumerate(pathlib.Path(snippets).read_text().split("\n===\n")):
        cases.append(("snippet %d: %s" % (i + 1, snippet), snippet, fixed))
    environment, cache = jinja_environment.environment(NOW), {}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([{"template": source, "variables": variables, "now": NOW} for _, source, variables in cases], file, ensure_ascii=False)
        file.flush()
        run = subprocess.run([batch, file.name], capture_output=True)
    answers = run.stdout.decode().split("\n")[:-1]
    if run.returncode or len(answers) != len(cases):
        sys.exit("template_batch failed: %d answers of %d, exit code %d\n%s" % (len(answers), len(cases), run.returncode, run.stderr.decode()[-2000:]))
    wrong = failed = 0
    for (name, source, variables), answer in zip(cases, answers):
        answer = json.loads(answer, strict=False)
        want, error = expected(environment, cache, source, variables)
        failed += error is not None
        unsupported = answer.get("code") == 2
        if "{# unsupported #}" in source:
            good = unsupported
        elif error is not None:
            good = "error" in answer
        else:
            good = answer.get("text") == want
        if good:
            continue
        wrong += 1
        if wrong <= 20:
            print("== %s\nvariables: %s\nwant: %r\n got: %r" % (name, json.dumps(variables)[:1500] if not name.startswith("snippet") else "", want if error is None else error, answer.get("text", answer.get("error"))))
    print("%d renderings, %d of them errors in Jinja2, %d wrong" % (len(cases), failed, wrong))
    sys.exit(1 if wrong else 0)


main()
