// One dead letter: its failure, headers, key and value. Everything in it was written by programs that are not
// trusted, so it is only ever shown as text.
import { html, Component } from "./html.js";
import { number } from "./format.js";
import { read, request } from "./session.js";

const VIEWS = [
  ["json", "JSON"],
  ["text", "Text"],
  ["hex", "Bytes"],
];
/** Time before the address of a file that the browser saves is given back. */
const SAVED_MS = 60000;

/** Bytes as lines of offset, hexadecimal numbers and ASCII. @param {string} base64 */
export function hexDump(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const numbers = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${numbers.padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}

/** Lets the browser save bytes. @param {string} path @param {string} name */
async function save(path, name) {
  const blob = await (await request(path)).blob();
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), SAVED_MS);
}

/** A key or a value. */
class Content extends Component {
  constructor(props) {
    super(props);
    this.state = { view: null, problem: "" };
  }

  async save() {
    const { path, part, file } = this.props;
    this.setState({ problem: "" });
    try {
      await save(`${path}?part=${part}`, `${file}.${part}`);
    } catch (error) {
      this.setState({ problem: error.message });
    }
  }

  render({ content, part, title }, { view, problem }) {
    if (content === null) return html`<section><h3>${title}</h3><p class="empty">The record has no ${part}: it is null.</p></section>`;
    const views = VIEWS.filter(([kind]) => kind === "hex" || content[kind] !== null);
    const shown = view ?? views[0][0];
    const text = shown === "hex" ? hexDump(content.base64) : content[shown];
    return html`<section>
      <h3>${title}, ${number(content.size)} bytes</h3>
      <div class="buttons" role="group" aria-label=${`How to show the ${part}`}>
        ${views.map(
          ([kind, label]) => html`<button type="button" aria-pressed=${kind === shown ? "true" : "false"}
            onClick=${() => this.setState({ view: kind })}>${label}</button>`,
        )}
        <button type="button" onClick=${() => this.save()}>Save the ${part}</button>
      </div>
      ${content.truncated && html`<p class="note">Only the first 64 KiB are shown. Save the ${part} to see all of it.</p>`}
      <pre class="payload" tabindex="0" role="region" aria-label=${title}>${text === "" ? " " : text}</pre>
      <p role="status" class="bad">${problem}</p>
    </section>`;
  }
}

/** What of the record is not in the dead letter. */
const Missing = ({ missing }) =>
  missing !== null &&
  html`<p class="note">The dead letter topic did not accept the whole record:
    ${missing.valueSize !== null && ` the value has ${number(missing.valueKept)} of ${number(missing.valueSize)} bytes;`}
    ${missing.keyReplaced && " the key is not the one of the record;"}
    ${missing.headersDropped !== null && ` ${number(missing.headersDropped)} headers are missing;`}
    ${missing.timestampMilliseconds !== null && " the timestamp is not the one of the record;"}
    ${" "}the headers kafka-consumer.dev/* say more.</p>`;

/** The dialog with one dead letter. */
export class Letter extends Component {
  constructor(props) {
    super(props);
    this.state = { letter: null, problem: "" };
  }

  componentDidMount() {
    this.dialog.showModal();
    this.load();
  }

  componentWillUnmount() {
    this.gone = true;
  }

  path() {
    const { group, place } = this.props;
    return `/api/v1/groups/${group}/dead-letters/${place.partition}/${place.offset}`;
  }

  async load() {
    try {
      const letter = await read(this.path());
      if (!this.gone) this.setState({ letter });
    } catch (error) {
      if (!this.gone) this.setState({ problem: error.status ? error.message : `No answer from the server: ${error.message}` });
    }
  }

  render({ place, onClose }, { letter, problem }) {
    const file = letter && `${letter.topic}-${letter.partition}-${letter.offset}`;
    return html`<dialog class="wide" ref=${(dialog) => (this.dialog = dialog)} aria-labelledby="letter-title" onClose=${onClose}>
      <h2 id="letter-title">Dead letter at partition ${place.partition}, offset ${place.offset}</h2>
      <p role="status" class=${problem ? "bad" : "note"}>${problem || (letter ? "" : "Loading …")}</p>
      ${letter &&
      html`<dl class="about">
          <dt>Record</dt><dd>${letter.origin ? `${letter.origin.topic}-${letter.origin.partition} at offset ${letter.origin.offset}` : letter.noOrigin}</dd>
          <dt>Failed at</dt><dd>${letter.stage ?? "unknown"}${letter.component !== null && `, ${letter.component}`}</dd>
          <dt>Error</dt><dd><strong>${letter.class ?? "unknown"}</strong><pre class="error">${letter.message ?? "no message"}</pre></dd>
          <dt>Attempts</dt><dd>${letter.attempts === null ? "unknown" : number(letter.attempts)}</dd>
          <dt>Worker</dt><dd>${letter.worker ?? "unknown"}</dd>
          <dt>Timestamp</dt><dd>${letter.timestamp === null ? "none" : letter.timestamp}</dd>
        </dl>
        <${Missing} missing=${letter.missing} />
        <${Content} content=${letter.key} part="key" title="Key" path=${this.path()} file=${file} />
        <${Content} content=${letter.value} part="value" title="Value" path=${this.path()} file=${file} />
        <section>
          <h3>Headers</h3>
          ${letter.allHeaders.length === 0
            ? html`<p class="empty">The record has no headers.</p>`
            : html`<div class="scroll" tabindex="0" role="region" aria-label="Headers"><table>
                <caption class="hidden">Headers</caption>
                <thead><tr><th scope="col">Name</th><th scope="col">Value</th></tr></thead>
                <tbody>${letter.allHeaders.map(
                  (it, index) => html`<tr key=${index}><th scope="row">${it.name}</th>
                    <td class="text">${it.value ?? html`<em>null</em>`}${!it.exact && html` <em>(${number(it.size)} bytes; cut or not text)</em>`}</td></tr>`,
                )}</tbody>
              </table></div>`}
          ${letter.headersTotal > letter.allHeaders.length && html`<p class="note">The first ${letter.allHeaders.length} of ${number(letter.headersTotal)} headers.</p>`}
        </section>`}
      <div class="buttons"><button type="button" autofocus onClick=${() => this.dialog.close()}>Close</button></div>
    </dialog>`;
  }
}
