"""The process in which `r.js` runs scripts: one request after the other, read from stdin, answered on stdout.

It is started as a file in an isolated interpreter (`python -I`), so it imports nothing of the server, gets no
environment, and gives up files and memory beyond what scripts may have before it reads anything. One rule: a script
gets at nothing but the language; JavaScript values become JSON texts inside the engine (PRELUDE), and nothing else
comes out.

It says [] when it is ready. A frame is its length in four bytes, big endian, and JSON. A request is [session,
source, calls, limit_ms, array_limit]: calls is null to evaluate the source, else a list of argument lists for the
function that the source gives. The answer is a frame for the evaluation, or one for each call, up to the first one
that fails:
["value", JSON text] | ["function"] | ["array"] (too long) | ["timeout"] | ["error", message].
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections import OrderedDict
from typing import Any

import quickjs

PROCESS_BYTES = 1 << 30
SCRIPT_BYTES = 64 << 20
STACK_BYTES = 4 << 20
SESSIONS = 4  # whose engines are kept; an older one starts anew when its query comes again
FUNCTIONS = 100  # kept per session

PRELUDE = r"""
(() => {
  "use strict";
  const evaluate = globalThis.eval, parse = JSON.parse, quote = JSON.stringify, text = String;
  const isArray = Array.isArray, keysOf = Object.keys, prototypeOf = Object.getPrototypeOf, isSame = Object.is;
  const isFiniteNumber = Number.isFinite, RegExpPrototype = RegExp.prototype, DatePrototype = Date.prototype;
  const NativeDate = Date, apply = Reflect.apply, valueOfDate = Date.prototype.valueOf;
  const wellFormed = String.prototype.toWellFormed;
  const DEPTH = 500;
  const functions = new Map();
  const put = functions.set.bind(functions), get = functions.get.bind(functions);
  const forget = functions.delete.bind(functions);
  const oldest = () => functions.keys().next().value, count = () => functions.size;
  let arrayLimit = 0;

  const answer = (kind, said) => '["' + kind + '",' + quote(said) + "]";
  class Refusal { constructor(kind, message) { this.answer = answer(kind, message); } }
  const refuse = (message) => { throw new Refusal("error", message); };
  const string = (value) => quote(apply(wellFormed, value, []));
  const number = (value) => {
    if (!isFiniteNumber(value)) refuse("Number return value is not finite.");
    return isSame(value, -0) ? "-0.0" : quote(value);
  };
  const date = (value) => {
    const milliseconds = apply(valueOfDate, value, []);
    if (!isFiniteNumber(milliseconds)) refuse("Non-finite number: nan");
    return '{"$reql_type$":"TIME","epoch_time":' + quote(milliseconds / 1000) + ',"timezone":"+00:00"}';
  };
  const array = (value, depth) => {
    const length = value.length;
    if (length > arrayLimit) throw new Refusal("array", "");
    let out = "[";
    for (let at = 0; at < length; at++) out += (at ? "," : "") + datum(value[at], depth);
    return out + "]";
  };
  const object = (value, depth) => {
    const keys = keysOf(value);
    let out = "{";
    for (let at = 0; at < keys.length; at++) {
      out += (at ? "," : "") + string(keys[at]) + ":" + datum(value[keys[at]], depth);
    }
    return out + "}";
  };
  const datum = (value, depth) => {
    if (depth === 0) refuse("Recursion limit exceeded in js_to_json (circular reference?).");
    switch (typeof value) {
      case "string": return string(value);
      case "number": return number(value);
      case "boolean": return value ? "true" : "false";
      case "undefined": return refuse("Cannot convert javascript `undefined` to ql::datum_t.");
      case "function": return refuse("Cannot convert function to ql::datum_t.");
      case "object": break;
      default: return refuse("Unhandled value type when converting to ql::datum_t.");
    }
    if (value === null) return "null";
    if (isArray(value)) return array(value, depth - 1);
    const prototype = prototypeOf(value);
    if (prototype === RegExpPrototype) refuse("Cannot convert RegExp to ql::datum_t.");
    if (prototype === DatePrototype) return date(value);
    return object(value, depth - 1);
  };
  const revive = (key, value) =>
    value !== null && typeof value === "object" && value.$reql_type$ === "TIME"
      ? new NativeDate(value.epoch_time * 1000) : value;
  const guarded = (work) => {
    try {
      return work();
    } catch (error) {
      if (error instanceof Refusal) return error.answer;
      try {
        return answer("error", text(error));
      } catch (_) {
        return answer("error", "an exception that has no text");
      }
    }
  };
  return (limit, source, argumentsText) => {
    arrayLimit = limit;
    if (argumentsText === null) return guarded(() => {
      const value = evaluate(source);
      if (typeof value !== "function") return answer("value", datum(value, DEPTH));
      if (count() >= FUNCTIONS) forget(oldest());
      put(source, value);
      return '["function"]';
    });
    const found = get(source);
    if (found === undefined) return '["absent"]';
    return guarded(() => {
      const value = apply(found, globalThis, parse(argumentsText, revive));
      if (typeof value === "function") refuse("Returning functions from within `r.js` is unsupported.");
      return answer("value", datum(value, DEPTH));
    });
  };
})()
""".replace("FUNCTIONS", str(FUNCTIONS))

# Where people meet it often, this engine's wording is turned into that of the older one in RethinkDB.
WORDING = (
    (re.compile(r"ReferenceError: (\S+) is not defined\Z"), r"ReferenceError: '\1' is not defined"),
    (re.compile(r"RangeError: Maximum call stack size exceeded\Z"), "InternalError: stack overflow"),
)


class Engine:
    """One session's JavaScript world."""

    def __init__(self) -> None:
        self._context = quickjs.Context()
        self._context.set_memory_limit(SCRIPT_BYTES)
        self._context.set_max_stack_size(STACK_BYTES)
        self._run = self._context.eval(PRELUDE)

    def run(self, source: str, arguments: list[Any] | None, limit_ms: int, array_limit: int) -> list[Any]:
        """The answer of one evaluation (arguments is None) or call."""
        answer = self._ask(source, None if arguments is None else json.dumps(arguments), limit_ms, array_limit)
        if answer == ["absent"]:
            answer = self._ask(source, None, limit_ms, array_limit)
            if answer != ["function"]:
                if answer[0] == "value":
                    return ["error", NO_FUNCTION % source]
                return answer
            answer = self._ask(source, json.dumps(arguments), limit_ms, array_limit)
        return answer

    def _ask(self, source: str, arguments: str | None, limit_ms: int, array_limit: int) -> list[Any]:
        self._context.set_time_limit(limit_ms / 1000)
        try:
            answer: list[Any] = json.loads(self._run(array_limit, source, arguments))
        except quickjs.JSException as error:
            text = str(error).partition("\n")[0]
            return ["timeout"] if text == "InternalError: interrupted" else ["error", text]
        if answer[0] == "error":
            for pattern, wording in WORDING:
                answer[1] = pattern.sub(wording, answer[1])
        return answer


NO_FUNCTION = "Javascript query `%s` returned a value when it should have returned a function."


def serve() -> None:
    """Answers requests until stdin ends."""
    engines: OrderedDict[int, Engine] = OrderedDict()
    while True:
        head = sys.stdin.buffer.read(4)
        if len(head) < 4:
            return
        request = json.loads(sys.stdin.buffer.read(int.from_bytes(head, "big")))
        session, source, calls, limit_ms, array_limit = request
        engine = engines.pop(session, None) or Engine()
        engines[session] = engine
        while len(engines) > SESSIONS:
            engines.popitem(last=False)
        for arguments in [None] if calls is None else calls:
            answer = engine.run(source, arguments, limit_ms, array_limit)
            say(answer)
            if answer[0] not in ("value", "function"):
                break


def say(answer: list[Any]) -> None:
    raw = json.dumps(answer).encode()
    sys.stdout.buffer.write(len(raw).to_bytes(4, "big") + raw)
    sys.stdout.buffer.flush()


def give_up_rights() -> None:
    """From here on the process can neither write files nor open many, nor start others, nor grow without end."""
    for what, most in (
        (resource.RLIMIT_AS, PROCESS_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    give_up_rights()
    say([])
    serve()
