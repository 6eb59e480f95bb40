// Renders /openapi.json plainly: operations by tag, parameters with their limits, statuses with their reasons, schemas, problems.
const $ = (id) => document.getElementById(id);
const METHODS = ["get", "post", "put", "patch", "delete"];

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  if (className) made.className = className;
  return made;
}

function schemaWords(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const options = schema.anyOf || schema.oneOf;
  if (options) return options.map(schemaWords).join(" | ");
  let words = schema.type === "array" ? `array of ${schemaWords(schema.items)}` : [schema.type].flat().join(" | ");
  if (schema.format) words += ` (${schema.format})`;
  const limits = [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"], ["minLength", "length ≥"], ["maxLength", "length ≤"],
    ["minItems", "items ≥"], ["maxItems", "items ≤"], ["pattern", "matches"], ["default", "default"]];
  for (const [key, word] of limits) if (schema[key] !== undefined && schema[key] !== null) words += `, ${word} ${JSON.stringify(schema[key])}`;
  return words;
}

function table(headings, rows) {
  const made = element("table");
  const head = element("tr");
  for (const text of headings) {
    const cell = element("th", text);
    cell.scope = "col";
    head.append(cell);
  }
  made.append(head);
  for (const row of rows) {
    const line = element("tr");
    for (const text of row) line.append(element("td", text));
    made.append(line);
  }
  return made;
}

function properties(schema) {
  const required = new Set(schema.required || []);
  return Object.entries(schema.properties || {}).map(([name, one]) => [name + (required.has(name) ? " *" : ""), schemaWords(one), one.description || ""]);
}

function operation(path, method, one) {
  const details = element("details");
  details.id = `${method}-${path}`;
  const summary = element("summary");
  summary.append(element("span", method.toUpperCase(), "method"), element("code", path), ` ${one.summary}`);
  const body = element("div");
  body.append(element("p", one.description || ""));
  if (one.parameters) body.append(element("h3", "Parameters"), table(["Name", "In", "Value", "Meaning"],
    one.parameters.map((p) => [p.name + (p.required ? " *" : ""), p.in, schemaWords(p.schema), p.description || ""])));
  if (one.requestBody) body.append(element("h3", "Body"), element("p", schemaWords(one.requestBody.content["application/json"].schema)));
  body.append(element("h3", "Answers"), table(["Status", "Meaning", "Content"], Object.entries(one.responses).map(([status, answer]) => [
    status, answer.description, Object.entries(answer.content || {}).map(([media, content]) => `${media}: ${schemaWords(content.schema)}`).join("; ")])));
  details.append(summary, body);
  return details;
}

async function show() {
  const document_ = await (await fetch("/openapi.json")).json();
  const main = $("main");
  const intro = element("section");
  intro.append(element("p", document_.info.description), element("p", `Version ${document_.info.version}`));
  main.append(intro);
  for (const tag of document_.tags) {
    const section = element("section");
    section.append(element("h2", tag.name), element("p", tag.description));
    for (const [path, item] of Object.entries(document_.paths))
      for (const method of METHODS) if (item[method] && item[method].tags.includes(tag.name)) section.append(operation(path, method, item[method]));
    main.append(section);
  }
  const schemas = element("section");
  schemas.append(element("h2", "Schemas"));
  for (const [name, schema] of Object.entries(document_.components.schemas)) {
    const details = element("details");
    details.id = `schema-${name}`;
    const body = element("div");
    body.append(element("p", schema.description || ""));
    body.append(schema.properties ? table(["Member", "Value", "Meaning"], properties(schema)) : element("p", schemaWords(schema)));
    details.append(element("summary", name), body);
    schemas.append(details);
  }
  main.append(schemas);
  const problems = element("section");
  problems.append(element("h2", "Problems"), element("p", "Every refusal is application/problem+json (RFC 9457); its type is one of these."));
  const list = element("dl");
  for (const [code, title] of Object.entries(document_["x-problem-types"])) {
    const term = element("dt");
    term.id = `problem-${code}`;
    term.append(element("code", code));
    list.append(term, element("dd", title));
  }
  problems.append(list);
  main.append(problems);
  $("state").textContent = "";
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

show().catch((error) => {
  $("state").textContent = `The document could not be loaded: ${error.message}`;
  $("state").className = "state bad";
});
