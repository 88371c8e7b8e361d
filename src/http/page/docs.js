// The documentation: openapi.json and asyncapi.json as one page for people. Everything is put on the page as text, never as
// markup, and all of it at once, so that the browser's own find sees it.

const [http, socket] = await Promise.all(["openapi.json", "asyncapi.json"].map(read)).catch((error) => {
  document.getElementById("state").textContent = `The documents could not be read: ${error.message}`;
  throw error;
});

async function read(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.json();
}

/** An element with attributes and children; texts are children, and what is null is none. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) if (value != null) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter((child) => child != null));
  return element;
}

/** A text in which `…` is code. */
const inline = (text) =>
  (text ?? "").split(/`([^`]+)`/).map((part, index) => (index % 2 ? h("code", null, part) : part));

const paragraphs = (text) => (text ?? "").split("\n\n").filter(Boolean).map((part) => h("p", null, inline(part)));

/** What a reference leads to, in the document that it stands in. */
function resolve(root, value) {
  const reference = value?.$ref;
  if (reference === undefined) return value;
  return resolve(root, reference.split("/").slice(1).reduce((held, part) => held?.[part], root));
}

const lastPart = (reference) => reference.split("/").at(-1);

// ---- schemas -------------------------------------------------------------------------------------------------------

const schemaLink = (name) => h("a", { href: `#schema-${name}` }, name);

/** The type of a schema in a few words. */
function typeOf(schema) {
  if (schema === true || schema === undefined) return ["any"];
  if (schema.$ref) return [schemaLink(lastPart(schema.$ref))];
  if ("const" in schema) return [h("code", null, JSON.stringify(schema.const))];
  if (schema.enum) return schema.enum.flatMap((value, index) => [index ? " | " : null, h("code", null, value === null ? "null" : String(value))]);
  const choices = schema.anyOf ?? (schema.type ? undefined : schema.oneOf);
  if (choices) return choices.flatMap((choice, index) => [index ? " | " : null, ...typeOf(choice)]);
  const types = [schema.type ?? "any"].flat();
  return types.flatMap((type, index) => [index ? " | " : null, ...(type === "array" && schema.items ? ["array of ", ...typeOf(schema.items)] : [type])]);
}

/** The largest number of 64 bits is none that scripts can say. */
const number = (value) => (value > Number.MAX_SAFE_INTEGER ? "2⁶⁴ − 1" : value.toLocaleString("en"));

/** The limits of a schema, in words. */
function limitsOf(schema) {
  const said = [];
  const { minimum, maximum, exclusiveMinimum, minLength, maxLength, maxItems, pattern, multipleOf } = schema;
  if (minimum != null && maximum != null) said.push(`${number(minimum)} to ${number(maximum)}`);
  else if (minimum != null) said.push(`${number(minimum)} or more`);
  else if (maximum != null) said.push(`at most ${number(maximum)}`);
  if (exclusiveMinimum != null) said.push(`more than ${number(exclusiveMinimum)}`);
  if (multipleOf === 1) said.push("a whole number");
  if (minLength === 1) said.push("not empty");
  if (maxLength != null) said.push(`at most ${number(maxLength)} characters`);
  if (maxItems != null) said.push(`at most ${number(maxItems)}`);
  if (pattern?.includes("\\u0000-")) said.push("no control characters");
  else if (pattern) said.push(["as ", h("code", null, pattern)]);
  if (schema.default !== undefined) said.push(["default ", h("code", null, String(schema.default))]);
  return said.flatMap((part, index) => [index ? ", " : null, part]);
}

function fields(schema, inner) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const target = field.items ?? field;
    const isObject = target.properties !== undefined;
    const limits = limitsOf(field);
    return h("tr", null,
      h("th", { scope: "row" }, h("code", null, name), schema.required?.includes(name) ? h("span", { class: "required" }, " required") : null),
      h("td", { class: "type" }, typeOf(field)),
      h("td", null, inline(field.description), limits.length > 0 ? h("p", { class: "quiet" }, limits) : null, isObject ? fields(target, true) : null));
  });
  if (rows.length === 0) return null;
  const head = inner ? null : h("thead", null, h("tr", null, ["Field", "Type", "Meaning"].map((name) => h("th", { scope: "col" }, name))));
  return h("table", { class: inner ? "inner" : "fields" }, head, h("tbody", null, rows));
}

function describe(schema) {
  if (!schema) return null;
  const table = fields(schema);
  if (table) return table;
  const limits = limitsOf(schema);
  return h("p", null, typeOf(schema), limits.length > 0 ? h("span", { class: "quiet" }, ": ", limits) : null);
}

// ---- parts of the page ---------------------------------------------------------------------------------------------

const contents = document.getElementById("contents");
const main = document.getElementById("content");

/** A part of the page and of its contents; gives what articles are added with. */
function part(id, title, ...introduction) {
  const section = h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), introduction);
  const list = h("ul");
  main.append(section);
  contents.append(h("h2", null, h("a", { href: `#${id}` }, title)), list);
  return (own, heading, label, ...children) => {
    list.append(h("li", null, h("a", { href: `#${own}` }, label)));
    const anchor = h("a", { class: "anchor", href: `#${own}`, "aria-label": `Link to ${label}` }, "#");
    section.append(h("article", { id: own }, h("h3", null, heading, anchor), children));
  };
}

const json = (value) => h("pre", { tabindex: "0" }, typeof value === "string" ? value : JSON.stringify(value, null, 2));

function examples(list) {
  if (list.length === 0) return null;
  return [
    h("h4", null, list.length === 1 ? "Example" : "Examples"),
    list.map(({ name, value }, index) => h("details", { open: index === 0 ? "" : null }, h("summary", null, name), json(value))),
  ];
}

function table(head, rows) {
  return h("table", null,
    h("thead", null, h("tr", null, head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, rows.map(([first, ...others]) => h("tr", null, h("th", { scope: "row" }, first), others.map((cell) => h("td", null, cell))))));
}

const code = (text) => h("code", null, String(text));

// ---- HTTP ----------------------------------------------------------------------------------------------------------

const problemLink = (name) => h("a", { href: `#problem-${name}` }, code(name));

function responses(operation) {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const { description, headers, content, ["x-problems"]: problems } = resolve(http, response);
    const bodies = Object.entries(content ?? {}).filter(([type]) => !problems || type !== "application/problem+json");
    return [
      code(status),
      [
        h("p", null, inline(description)),
        bodies.map(([type, { schema }]) => h("p", null, code(type), ": ", typeOf(schema))),
        headers ? h("p", { class: "quiet" }, "Headers: ", Object.keys(headers).flatMap((name, index) => [index ? ", " : null, code(name)])) : null,
        problems ? h("p", { class: "quiet" }, "Problems: ", problems.flatMap((name, index) => [index ? ", " : null, problemLink(name)])) : null,
      ],
    ];
  });
  return [h("h4", null, "Answers"), table(["Status", "What it says"], rows)];
}

function parameters(operation) {
  const list = (operation.parameters ?? []).map((parameter) => resolve(http, parameter));
  if (list.length === 0) return null;
  const rows = list.map(({ name, in: place, required, description, schema }) => {
    const limits = limitsOf(resolve(http, schema));
    return [
      [code(name), required ? h("span", { class: "required" }, " required") : null],
      place,
      typeOf(schema),
      [inline(description), limits.length > 0 ? h("p", { class: "quiet" }, limits) : null],
    ];
  });
  return [h("h4", null, "Parameters"), table(["Name", "In", "Type", "Meaning"], rows)];
}

function body(operation) {
  const content = Object.entries(operation.requestBody?.content ?? {});
  if (content.length === 0) return null;
  const given = content.flatMap(([type, { examples }]) =>
    Object.values(examples ?? {}).map((example) => resolve(http, example)).map(({ summary, value }) => ({ name: `${summary} (${type})`, value })));
  return [
    h("h4", null, "Body"),
    table(["Content-Type", "Schema"], content.map(([type, { schema }]) => [code(type), [typeOf(schema), schema.description ? [". ", inline(schema.description)] : null]])),
    examples(given),
  ];
}

function security(operation) {
  const schemes = (operation.security ?? []).flatMap(Object.keys);
  if (schemes.length === 0) return null;
  const isOptional = operation.security.some((one) => Object.keys(one).length === 0);
  const links = schemes.flatMap((name, index) => [index ? ", " : null, h("a", { href: `#token-${name}` }, name)]);
  return h("p", { class: "quiet" }, "Token: ", links, isOptional ? " (none where the service asks for none)" : null);
}

function showHttp() {
  for (const tag of http.tags) {
    const add = part(`http-${tag.name.replaceAll(" ", "-")}`, `HTTP: ${tag.name}`, paragraphs(tag.description));
    for (const [path, methods] of Object.entries(http.paths)) {
      for (const [method, operation] of Object.entries(methods).filter(([, { tags }]) => tags.includes(tag.name))) {
        const name = method.toUpperCase();
        add(operation.operationId, [h("span", { class: `method ${method}` }, name), code(path)], `${name} ${path}`,
          h("p", null, inline(operation.summary), "."), paragraphs(operation.description), security(operation),
          parameters(operation), body(operation), responses(operation));
      }
    }
  }
}

// ---- messages ------------------------------------------------------------------------------------------------------

const messageLink = (key) => h("a", { href: `#message-${key}` }, code(key));
const keyOf = (reference) => lastPart(reference.$ref);

function showChannels() {
  const add = part("channels", "Where messages go");
  for (const [name, channel] of Object.entries(socket.channels)) {
    const server = resolve(socket, channel.servers[0]);
    const operation = Object.values(socket.operations).find(({ channel: { $ref } }) => lastPart($ref) === name);
    const query = channel.bindings?.ws?.query ?? operation?.bindings?.http?.query;
    add(`channel-${name}`, [code(channel.address), h("span", { class: "by" }, ` ${server.protocol}`)], channel.address,
      h("p", null, h("strong", null, channel.title), "."), paragraphs(channel.description), paragraphs(server.description),
      query ? [h("h4", null, "Options in the address"), fields(query)] : null,
      channel.bindings?.ws?.headers ? [h("h4", null, "Headers of the handshake"), fields(channel.bindings.ws.headers)] : null);
  }
}

function showMessages() {
  const operations = Object.values(socket.operations);
  const answersOf = (key) => operations.filter(({ reply, messages }) => reply && messages.some((message) => keyOf(message) === key));
  const parts = [
    ["server", "Messages of the service", (key) => !key.startsWith("celery_") && operations[0].messages.some((message) => keyOf(message) === key)],
    ["client", "Messages of a client", (key) => answersOf(key).length > 0],
    ["celery", "Messages with dialect=celery", (key) => key.startsWith("celery_")],
    ["worker", "Messages of a worker", (key) => ["event", "revocation"].includes(key)],
  ];
  for (const [id, title, belongs] of parts) {
    const about = id === "server" ? operations[0].summary : id === "celery" ? socket.operations.tell_celery.summary : null;
    const add = part(`messages-${id}`, title, paragraphs(about));
    for (const [key, message] of Object.entries(socket.components.messages).filter(([key]) => belongs(key))) {
      const answers = [...new Set(answersOf(key).flatMap(({ reply }) => reply.messages.map(keyOf)))];
      const schema = message.payload.$ref ? null : message.payload;
      add(`message-${key}`, [code(message.name), h("span", { class: "by" }, ` ${message.title}`)], key,
        paragraphs(message.summary),
        answers.length > 0 ? h("p", null, "Answered by ", answers.flatMap((answer, index) => [index ? " or " : null, messageLink(answer)]), ".") : null,
        schema ? describe(schema) : h("p", null, "Fields: ", typeOf(message.payload)),
        examples(message.examples.map(({ name, payload }) => ({ name: name.replaceAll("-", " "), value: payload }))));
    }
  }
}

// ---- schemas, codes, tokens ----------------------------------------------------------------------------------------

function showSchemas() {
  const add = part("schemas", "Schemas", h("p", null, "What several messages and answers have in common."));
  const all = { ...socket.components.schemas, ...http.components.schemas };
  for (const [name, schema] of Object.entries(all).sort(([a], [b]) => a.localeCompare(b))) {
    add(`schema-${name}`, name, name, paragraphs(schema.description), describe(schema));
  }
}

function showCodes() {
  const add = part("codes", "Codes and names");
  const values = (name) => socket[name].values;
  const meanings = (name) => table(["Code", "Meaning", "What a client does"], values(name).map((row) => [code(row.code), inline(row.meaning), inline(row.client)]));
  add("statuses", "Statuses", "Statuses", table(["Status", "Meaning", "Ended", "In Celery", "Other names that are read"],
    values("x-statuses").map((row) => [code(row.name), inline(row.meaning), row.terminal ? "yes" : "no", row.celery, row.aliases.join(", ")])));
  add("close-codes", "Close codes", "Close codes", table(["Code", "Name", "Meaning", "What a client does"],
    values("x-close-codes").map((row) => [code(row.code), row.name, inline(row.meaning), inline(row.client)])));
  add("error-codes", ["Codes of ", code("error")], "Codes of error", meanings("x-error-codes"));
  add("authentication-error-codes", ["Codes of ", code("authentication_error")], "Codes of authentication_error", meanings("x-authentication-error-codes"));
  add("resume-failures", ["Reasons of ", code("resume_failure"), " and ", code("reset")], "Reasons of resume_failure", meanings("x-resume-failures"));
  add("field-aliases", "Other names of fields", "Other names of fields",
    h("p", null, "Of events. A field's own name wins; an alias whose value has another type is an unknown field."),
    table(["Field", "Read too"], Object.entries(values("x-field-aliases")).map(([name, aliases]) => [code(name), aliases.join(", ")])));
  add("message-aliases", "Other names of messages", "Other names of messages",
    h("p", null, "Of clients. Fields within ", code("data"), " or ", code("payload"), " are read too."),
    table(["Message", "Read too"], Object.entries(values("x-message-types").client).filter(([, aliases]) => aliases.length > 0).map(([name, aliases]) => [messageLink(name), aliases.join(", ")])));
  add("limits", "Limits", "Limits", table(["Limit", "Value"], Object.entries(values("x-limits")).map(([name, value]) => [code(name), number(value)])));
  add("problems", "Problems over HTTP", "Problems over HTTP",
    h("p", null, "Each has ", code("type"), ", which is ", code("urn:taskcast:problem:"), " and the name."),
    h("table", null,
      h("thead", null, h("tr", null, ["Name", "Status", "Meaning"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, http["x-problem-types"].map((row) =>
        h("tr", { id: `problem-${row.name}` }, h("th", { scope: "row" }, code(row.name)), h("td", null, String(row.status)), h("td", null, inline(`${row.title}. ${row.meaning}`)))))));
}

function showMetrics() {
  const add = part("metrics", "Metrics", h("p", null, "At ", code("/metrics"), " on the operators' listener; what each means, and what to do about it."));
  for (const { name, type, labels, meaning, advice } of http.paths["/metrics"].get["x-metrics"].values) {
    const rows = Object.entries(labels).map(([label, values]) => [code(label), values.flatMap((value, index) => [index ? ", " : null, code(value)])]);
    add(`metric-${name}`, [code(name), h("span", { class: "by" }, ` ${type}`)], name,
      h("p", null, inline(meaning)), h("p", null, h("strong", null, "What to do: "), inline(advice)), rows.length > 0 ? table(["Label", "Values"], rows) : null);
  }
}

function showTokens() {
  const add = part("tokens", "Where a token goes");
  for (const [name, scheme] of Object.entries(http.components.securitySchemes)) {
    const place = scheme.type === "http" ? "Authorization: Bearer …" : `${scheme.in}: ${scheme.name}`;
    add(`token-${name}`, [name, h("span", { class: "by" }, " ", code(place))], name, paragraphs(scheme.description));
  }
}

document.getElementById("version").textContent = http.info.version;
part("about", "About", paragraphs(http.info.description), paragraphs(socket.info.description));
showHttp();
showTokens();
showChannels();
showMessages();
showSchemas();
showCodes();
showMetrics();
document.getElementById("state").remove();
if (matchMedia("(max-width: 52rem)").matches) contents.removeAttribute("open");
// What the address points to has only now come into being.
const target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
if (target !== null) location.replace(location.hash);
document.documentElement.dataset.rendered = "true";
