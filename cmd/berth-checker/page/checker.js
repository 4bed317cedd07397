// The page shows what /events tells, and sends what is asked for. It keeps nothing but which tests' Info is open.
"use strict";

const $ = (id) => document.getElementById(id);
const open = new Set();
let state = null;
let revealed = false; // somebody asked for the new account's password
$("old").hidden = true; // a browser that reads so far can do the rest

// make builds an element; all text goes in as text.
function make(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

const isWrong = (t) => t.state === "FAILED" || t.state === "WARNING" || t.state === "UNKNOWN";
const rank = { FAILED: 0, WARNING: 1, UNKNOWN: 2, PASSED: 3, "NOT APPLICABLE": 4 };

function show(s) {
  state = s;
  const idle = s.phase === "ready" || s.phase === "checked";
  const over = s.phase === "shutdown" || s.phase === "cancelled";
  document.body.dataset.phase = s.phase;
  $("machine").textContent = s.windows ? `${s.computer}: ${s.windows}` : $("machine").textContent;
  $("begin").disabled = !idle;
  $("begin").textContent = s.phase === "ready" || s.tests.some((t) => t.state === "To be tested") ? "Begin Tests" : "Rerun Tests";
  const fixes = s.fixes || [];
  $("fix").disabled = !idle || fixes.length === 0;
  $("profile").disabled = $("process").disabled = $("office").disabled = !idle;
  $("sysprep").disabled = $("remove").disabled = !idle;
  $("close").disabled = over || s.phase === "sysprep";

  status(s);
  list($("troubles"), s.troubles || [], (t) => make("p", {}, t));
  $("success").hidden = !s.fit || !!s.sysprep; // after a failed Sysprep the snapshot is the way back
  $("system-locale").textContent = s.locales ? s.locales.system : "unknown";
  $("user-locale").textContent = s.locales ? s.locales.user : "unknown";
  const failedNow = s.sysprep && $("sysprep-failed").hidden;
  $("sysprep-failed").hidden = !s.sysprep;
  if (s.sysprep) {
    const lines = s.sysprep.lines || [];
    $("sysprep-error").textContent = s.sysprep.error + (s.sysprep.log ? `. The last errors in ${s.sysprep.log}:` : "");
    $("sysprep-log").textContent = lines.join("\n");
    $("sysprep-log").hidden = lines.length === 0;
    if (failedNow) $("sysprep-failed").scrollIntoView({ block: "center" });
  }
  $("secret").hidden = over || !(s.secret || revealed);
  if (s.secret) { // another than the one that may have been shown before
    $("password").hidden = true;
    $("reveal").hidden = false;
  }
  list($("done").querySelector("ul"), s.done || [], (d) => make("li", {}, d), $("done"));
  list($("files").querySelector("ul"), s.files || [], (f) => make("li", {}, make("code", {}, f)), $("files"));
  $("account").hidden = !s.account;
  rows(s);
}

function status(s) {
  const count = (state) => s.tests.filter((t) => t.state === state).length;
  const say = $("status");
  say.className = "";
  switch (s.phase) {
    case "checking": say.textContent = `Testing: ${s.tests.length - count("Checking")} of ${s.tests.length}`; break;
    case "fixing": say.textContent = "Changing"; break;
    case "sysprep": say.textContent = "Sysprep started. This can take ten minutes"; break;
    case "shutdown": say.textContent = "Sysprep succeeded. Windows shuts down"; say.className = "good"; break;
    case "cancelled": say.textContent = "The checker has ended. You can close this page"; break;
    case "checked": {
      if (s.sysprep) {
        say.textContent = "Sysprep failed";
        say.className = "bad";
        break;
      }
      const parts = [["FAILED", "failed"], ["WARNING", "warnings"], ["UNKNOWN", "unknown"], ["PASSED", "passed"]];
      say.textContent = s.fit ? `All ${count("PASSED")} tests have passed` : parts.filter(([st]) => count(st) > 0).map(([st, word]) => `${count(st)} ${word === "warnings" && count(st) === 1 ? "warning" : word}`).join(", ");
      say.className = s.fit ? "good" : "bad";
      break;
    }
    default: say.textContent = `${s.tests.length} tests`;
  }
}

// list fills a list, and hides it, or what is around it, when it is empty.
function list(into, items, element, around = into) {
  into.replaceChildren(...items.map(element));
  around.hidden = items.length === 0;
}

function rows(s) {
  const tests = s.tests.map((t, i) => ({ ...t, i }));
  if (s.phase !== "checking" && s.phase !== "ready") tests.sort((a, b) => (rank[a.state] ?? 9) - (rank[b.state] ?? 9) || a.i - b.i);
  const focused = document.activeElement && document.activeElement.dataset.info;
  const applies = tests.filter((t) => t.state !== "NOT APPLICABLE");
  $("tests").replaceChildren(...applies.map(row));
  list($("others").querySelector("ul"), tests.filter((t) => t.state === "NOT APPLICABLE"), row, $("others"));
  $("others-count").textContent = tests.length - applies.length;
  if (focused) document.querySelector(`[data-info="${CSS.escape(focused)}"]`)?.focus();
}

function row(t) {
  const told = t.because !== "";
  const line = make("div", { class: "row" },
    make("span", { class: `state ${t.state.toLowerCase().replaceAll(" ", "-")}` }, t.state === "Checking" ? "Checking…" : t.state),
    make("span", {}, t.title, make("span", { class: "code" }, t.code)));
  if (isWrong(t)) line.children[1].append(make("span", { class: "because" }, t.because));
  const li = make("li", { "data-code": t.code, "data-state": t.state }, line);
  if (!told) {
    line.append(make("span", {}));
    return li;
  }
  const button = make("button", { type: "button", "data-info": t.code, "aria-expanded": open.has(t.code), "aria-label": `Info: ${t.title}` }, "Info");
  button.addEventListener("click", () => {
    open.has(t.code) ? open.delete(t.code) : open.add(t.code);
    rows(state);
  });
  line.append(button);
  if (open.has(t.code)) li.append(info(t));
  return li;
}

function info(t) {
  const box = make("div", { class: "info" }, ...(isWrong(t) ? [] : [make("p", {}, t.because)])); // else the row itself says it
  if (t.remedy) {
    box.append(make("h3", {}, t.fixable ? "What to do, if Fix All Warnings is not to do it" : "What to do"), ...remedy(t.remedy));
  }
  if (t.evidence && t.evidence.length > 0) {
    box.append(make("h3", {}, "What was seen"), make("ul", {}, ...t.evidence.map((e) => make("li", {}, e))));
  }
  box.append(make("h3", {}, "Who asks for it"), make("p", {}, t.source), make("p", { class: "note" }, document.body.dataset.sources));
  return box;
}

// remedy shows steps as paragraphs and the commands between them, which are indented, as something to copy.
function remedy(text) {
  const parts = [];
  for (const line of text.split("\n")) {
    const command = line.startsWith("  ");
    const last = parts[parts.length - 1];
    if (command && last?.tagName === "PRE") last.append("\n" + line.trim());
    else parts.push(command ? make("pre", {}, line.trim()) : make("p", {}, line));
  }
  return parts;
}

async function send(path, what) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what ?? {}) }).catch((e) => e);
  if (answer instanceof Error || !answer.ok) {
    const why = answer instanceof Error ? "The checker does not answer: its window may be closed." : await answer.text();
    $("troubles").append(make("p", {}, why));
    $("troubles").hidden = false;
    return null;
  }
  return answer.text();
}

function plan() {
  $("plan").replaceChildren(...(state.fixes || []).flatMap((f) => [make("h3", {}, f.title), make("ul", {}, ...f.steps.map((c) => make("li", {}, c)))]));
}

$("begin").addEventListener("click", () => send("/check", { profile: $("profile").value, process: $("process").value, office: $("office").checked }));
$("fix").addEventListener("click", () => { plan(); $("ask-fix").dataset.plan = state.plan; $("ask-fix").showModal(); });
$("fix-yes").addEventListener("click", () => { $("ask-fix").close(); send("/fix", { plan: $("ask-fix").dataset.plan }); });
$("sysprep").addEventListener("click", () => { $("snapshot").checked = false; $("sysprep-yes").disabled = true; $("ask-sysprep").showModal(); });
$("snapshot").addEventListener("change", () => { $("sysprep-yes").disabled = !$("snapshot").checked; });
$("sysprep-yes").addEventListener("click", () => { $("ask-sysprep").close(); send("/sysprep", { snapshot: $("snapshot").checked }); });
$("remove").addEventListener("click", () => $("ask-remove").showModal());
$("remove-yes").addEventListener("click", (e) => { $("ask-remove").close(); send("/account/remove", { account: e.target.dataset.account }); });
$("reveal").addEventListener("click", async (e) => {
  revealed = true;
  const password = await send("/account/password", { account: e.target.dataset.account });
  if (password === null) return;
  $("password").textContent = password;
  $("password").hidden = false;
  $("reveal").hidden = true;
});
$("close").addEventListener("click", () => send("/close"));
$("options").addEventListener("submit", (e) => e.preventDefault());
for (const b of document.querySelectorAll("dialog [data-close]")) b.addEventListener("click", () => b.closest("dialog").close());

const events = new EventSource("/events");
events.addEventListener("message", (e) => {
  const s = JSON.parse(e.data);
  show(s);
  if (s.phase === "cancelled") events.close();
});
events.addEventListener("error", () => {
  if (!state || state.phase !== "shutdown") $("status").textContent = "The checker does not answer";
});
