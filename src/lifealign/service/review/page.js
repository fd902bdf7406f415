"use strict";
(() => {
  const id = (name) => document.getElementById(name);
  const SIDES = ["a", "b"];
  const ROLES = { system: "System", user: "User", assistant: "Assistant" };
  const WORDS = { a: "A is better", b: "B is better", skip: "skipped" };

  let view = null; // what the server said last: progress, version, and the pair that is shown
  let mode = "look"; // look, pick (which answer to edit) or edit
  let side = null; // the side that is being edited
  let busy = false; // one request at a time: a key that is pressed meanwhile is about a pair that nobody has seen
  const drafts = new Map(); // texts of edits that were left, by pair and side

  history.replaceState(null, "", location.pathname); // the token is in a cookie by now, and need not be on screen

  const say = (text) => { id("status").textContent = text; };
  const fail = (text) => {
    id("problem").textContent = text;
    id("problem").hidden = !text;
  };
  const asText = (text) => text.replace(/\r\n?/g, "\n"); // as a text box holds it
  const draft = () => `${view.row.key} ${side}`;
  const fill = (element, text) => {
    element.textContent = text || "(empty)";
    element.classList.toggle("empty", !text);
  };

  // Returns the view that the server answers, or null after saying what is wrong.
  async function ask(path, body) {
    if (busy) return null;
    busy = true;
    document.body.setAttribute("aria-busy", "true");
    try {
      const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
      const reply = await fetch(path, body ? post : {});
      const content = await reply.json();
      if (reply.ok) {
        fail("");
        return content;
      }
      if (reply.status === 409) show(content.view, mode === "edit" && content.view.row.key === view.row.key);
      fail(content.error);
    } catch {
      fail("The review has ended, or cannot be reached. Everything that was decided is kept; the same command again continues.");
    } finally {
      busy = false;
      document.body.removeAttribute("aria-busy");
    }
    return null;
  }

  function setMode(next) {
    mode = next;
    for (const group of document.querySelectorAll("[data-for]")) group.hidden = group.dataset.for !== mode;
    for (const one of SIDES) {
      const editing = mode === "edit" && one === side;
      id(`editor-${one}`).hidden = !editing;
      id(`original-${one}`).hidden = editing;
      id(`edit-${one}`).hidden = mode !== "look";
    }
    id("finish").disabled = mode === "edit";
  }

  function showProgress() {
    const { total, decided, skipped } = view;
    id("bar").max = total;
    id("bar").value = decided + skipped;
    id("count").textContent = `${decided} of ${total}` + (skipped ? `, ${skipped} skipped` : "");
  }

  function show(next, keepEditor = false) {
    view = next;
    showProgress();
    const row = view.row;
    id("pair").hidden = !row;
    id("done").hidden = Boolean(row);
    id("actions").hidden = !row;
    if (!keepEditor) setMode("look");
    if (!row) {
      id("summary").textContent = `${view.decided} of ${view.total} pairs are decided, ${view.skipped} skipped.`;
      id("again").hidden = !view.skipped;
      id("h-done").focus();
      return;
    }
    id("title").textContent = `Pair ${row.number} of ${view.total}`;
    id("source").textContent = row.source;
    id("turns").replaceChildren(...row.prompt.map(({ role, content }) => {
      const turn = document.createElement("li"), name = document.createElement("span"), text = document.createElement("p");
      turn.className = role;
      name.className = "role";
      name.textContent = ROLES[role];
      text.className = "text";
      text.dir = "auto";
      fill(text, content);
      turn.append(name, text);
      return turn;
    }));
    const { choice = null, edited = null } = row.decision || {};
    id("state").textContent = choice ? `Decided: ${edited === null ? WORDS[choice] : `${choice.toUpperCase()}, edited`}` : "";
    for (const one of SIDES) {
      fill(id(`text-${one}`), row[one]);
      const mine = choice === one;
      id(`side-${one}`).classList.toggle("chosen", mine);
      id(`mark-${one}`).textContent = !mine ? "" : edited === null ? "better" : "edited";
      id(`better-${one}`).hidden = !(mine && edited !== null);
      id(`edited-${one}`).textContent = mine && edited !== null ? edited : "";
    }
    if (!keepEditor) {
      scrollTo(0, 0);
      id("talk").scrollTop = id("talk").scrollHeight; // the last turn is the one that is answered
      if (!document.activeElement || document.activeElement.offsetParent === null) id("content").focus({ preventScroll: true });
    }
  }

  async function decide(choice, edited = null) {
    const { number, key } = view.row;
    const next = await ask("/decide", { key, version: view.version, choice, edited });
    if (!next) return;
    for (const one of SIDES) drafts.delete(`${key} ${one}`);
    show(next);
    say(`Pair ${number}: ${edited === null ? WORDS[choice] : `${choice.toUpperCase()} edited`}, saved.` + (next.row ? ` Now pair ${next.row.number}.` : ""));
  }

  async function undo() {
    const next = await ask("/undo", { version: view.version });
    if (!next) return;
    show(next);
    say(`Pair ${next.row.number}: the last decision is undone.`);
  }

  async function go(query, missing) {
    if (missing) { say(missing); return; }
    const next = await ask(`/row${query}`);
    if (!next) return;
    show(next);
    say(next.row && query ? `Pair ${next.row.number} of ${next.total}. ${id("state").textContent}` : "");
  }
  const back = () => go(`?number=${view.row.number - 1}`, view.row.number === 1 && "This is the first pair.");
  const forward = () => go(`?number=${view.row.number + 1}`, view.row.number === view.total && "This is the last pair.");

  function pick() {
    setMode("pick");
    say("Which answer do you want to edit?");
    id("pick-a").focus({ preventScroll: true });
  }

  function edit(one) {
    side = one;
    setMode("edit");
    const box = id(`box-${one}`), { decision } = view.row;
    const edited = decision && decision.choice === one ? decision.edited : null;
    box.value = drafts.get(draft()) ?? edited ?? view.row[one];
    say("");
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
    id(`editor-${one}`).scrollIntoView({ block: "nearest" });
  }

  function leave() {
    const written = mode === "edit" && isWritten();
    if (written) drafts.set(draft(), id(`box-${side}`).value);
    else if (mode === "edit") drafts.delete(draft());
    say(written ? "Nothing is saved; what you wrote waits here until the page is left." : "");
    setMode("look");
    fail("");
    id("edit").focus({ preventScroll: true });
  }

  const isWritten = () => id(`box-${side}`).value !== asText(view.row[side]);
  const save = () => decide(side, id(`box-${side}`).value);

  async function finish() {
    const last = await ask("/finish", {});
    if (!last) return;
    view = last;
    showProgress();
    for (const name of ["pair", "done", "actions", "finish"]) id(name).hidden = true;
    id("ended").hidden = false;
    id("next").hidden = !view.decided; // then there is nothing to check
    id("result").textContent = `${view.decided} of ${view.total} pairs are decided, ${view.skipped} skipped.`;
    id("h-ended").focus();
  }
  const last = () => go(`?number=${view.total}`);

  const clicks = {
    "take-a": () => decide("a"), "take-b": () => decide("b"), "leave-out": () => decide("skip"), edit: pick, undo, back, forward,
    "pick-a": () => edit("a"), "pick-b": () => edit("b"), "pick-none": leave, save, leave,
    "edit-a": () => edit("a"), "edit-b": () => edit("b"), finish, "finish-done": finish,
    again: () => go("?skipped"), last, "undo-done": undo,
  };
  for (const [name, work] of Object.entries(clicks)) id(name).addEventListener("click", () => { if (view) work(); });

  const keys = {
    look: { a: () => decide("a"), b: () => decide("b"), s: () => decide("skip"), e: pick, u: undo, ArrowLeft: back, ArrowRight: forward },
    pick: { a: () => edit("a"), b: () => edit("b") },
    edit: {},
    done: { u: undo, ArrowLeft: last },
  };
  // The letter on a keyboard of another script is the one at its place.
  const letter = (event) => /^[ -~]$/.test(event.key) ? event.key.toLowerCase() : /^Key[A-Z]$/.test(event.code) && event.key.length === 1 ? event.code[3].toLowerCase() : event.key;

  document.addEventListener("keydown", (event) => {
    if (!view || !id("ended").hidden || event.isComposing) return;
    if (event.key === "Escape" && mode !== "look") { event.preventDefault(); leave(); return; }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && mode === "edit") { event.preventDefault(); save(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !id("keys").checked) return;
    const work = keys[view.row ? mode : "done"][letter(event)];
    if (work) { event.preventDefault(); work(); }
  });

  addEventListener("beforeunload", (event) => {
    if ((drafts.size || (mode === "edit" && isWritten())) && id("ended").hidden) event.preventDefault();
  });

  go("");
})();
