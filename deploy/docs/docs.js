// The page: Swagger UI with /openapi.json, a search over operations, and on a machine of one's own the demo credentials.
"use strict";

const DOCUMENT = "/openapi.json";
const CREDENTIALS = "/docs/credentials.json";
const LOCAL = ["127.0.0.1", "localhost", "[::1]"];

/** The demo credentials, which only the gateway of `tickets up` has; null elsewhere. */
async function demoCredentials() {
  if (!LOCAL.includes(location.hostname)) return null;
  const answer = await fetch(CREDENTIALS, { headers: { accept: "application/json" } });
  return answer.ok ? answer.json() : null;
}

/** Gives the variables of paths the demo's values, with which an operation is tried out at once. */
function withExamples(document, values) {
  for (const operations of Object.values(document.paths)) {
    for (const { parameters = [] } of Object.values(operations)) {
      for (const parameter of parameters) {
        if (parameter.in === "path" && parameter.name in values) parameter.example = values[parameter.name];
      }
    }
  }
  return document;
}

/** All words that are searched for are in the operation's path, verb, id, summary, or tag. */
function matches(operation, tag, words) {
  const about = operation.get("operation");
  const text = [operation.get("path"), operation.get("method"), about.get("operationId"), about.get("summary"), tag];
  const searched = text.join(" ").toLowerCase();
  return words.every((word) => searched.includes(word));
}

/** Swagger UI's own filter finds tags alone. */
function Search() {
  return {
    fn: {
      opsFilter: (tagged, phrase) => {
        const words = phrase.toLowerCase().split(/\s+/).filter(Boolean);
        return tagged
          .map((group, tag) => group.update("operations", (all) => all.filter((one) => matches(one, tag, words))))
          .filter((group) => group.get("operations").size > 0);
      },
    },
  };
}

/** Says what the search finds, once there is one. */
function nameSearch(page) {
  const observer = new MutationObserver(() => {
    const input = page.querySelector(".operation-filter-input");
    if (input === null) return;
    input.placeholder = "Find operations: words of a path, a verb, a name";
    observer.disconnect();
  });
  observer.observe(page, { childList: true, subtree: true });
}

/** A bar that fills the demo credentials in, all or those of one API. */
function offer(ui, { schemes }) {
  const bar = document.getElementById("demo");
  const titles = { handoffToken: "Handoff", helpdeskToken: "Helpdesk", itsmKey: "ITSM" };
  const buttons = {};
  const fill = (names) => {
    for (const name of names) {
      ui.preauthorizeApiKey(name, schemes[name]);
      buttons[name].textContent = `${titles[name]} ✓`;
      buttons[name].disabled = true;
    }
  };
  const button = (text, names) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", () => fill(names));
    return made;
  };
  bar.append("This is your own tickets up. Its demo credentials:");
  bar.append(button("Use all of them", Object.keys(schemes)));
  for (const name of Object.keys(schemes)) {
    buttons[name] = button(titles[name], [name]);
    buttons[name].className = "plain";
    bar.append(buttons[name]);
  }
  bar.hidden = false;
}

async function show() {
  const [read, demo] = await Promise.all([fetch(DOCUMENT), demoCredentials()]);
  if (!read.ok) throw new Error(`${DOCUMENT} was answered with ${read.status}`);
  const spec = await read.json();
  const page = document.getElementById("page");
  nameSearch(page);
  const ui = SwaggerUIBundle({
    spec: demo === null ? spec : withExamples(spec, demo.path),
    domNode: page,
    plugins: [Search],
    deepLinking: true,
    filter: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null, // nobody else is asked whether it is valid
    onComplete: () => {
      if (demo !== null) offer(ui, demo);
    },
  });
}

show().catch((error) => {
  document.getElementById("page").textContent = `This page cannot be shown: ${error.message}. Load it again.`;
});
