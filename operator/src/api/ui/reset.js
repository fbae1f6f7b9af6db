// The dialog that resets the committed offsets of a group: choose where to, see what would change, confirm,
// follow. The first step is a dry run; nothing changes before the user has seen its table.
import { html, Component } from "./html.js";
import { number, time } from "./format.js";
import { change, read } from "./session.js";

/** Time between two questions how far a reset is. */
const POLL_MS = 1000;
/** Rows of a plan that are shown; the resource has all. */
const ROWS = 200;
const KINDS = [
  ["Earliest", "The first record that Kafka still has"],
  ["Latest", "The end: skip what is there now"],
  ["Timestamp", "The first record at or after a time"],
  ["Shift", "A number of offsets back or forth"],
];

/** True if the reset stays as it is. */
const isFinal = (reset) => ["Succeeded", "Failed"].includes(reset?.status?.phase);

export class Reset extends Component {
  constructor(props) {
    super(props);
    this.state = this.closed();
  }

  closed() {
    return { kind: "Earliest", at: "", by: "", topic: "", stop: true, busy: false, problem: "", plan: null, reset: null };
  }

  componentWillUnmount() {
    this.ended = true;
  }

  resets() {
    const { group } = this.props;
    return `/api/v1/groups/${[group.namespace, group.name].map(encodeURIComponent).join("/")}/offset-resets`;
  }

  open() {
    this.setState(this.closed(), () => this.dialog.showModal());
  }

  /** What the form asks for. */
  wanted() {
    const { kind, at, by, topic, stop } = this.state;
    const to = { type: kind };
    if (kind === "Timestamp") to.timestamp = new Date(at).toISOString();
    if (kind === "Shift") to.by = Number(by);
    return { to, ...(topic ? { topics: [{ topic }] } : {}), stopGroup: stop };
  }

  /** Creates a reset and follows it to its end. @param {boolean} dryRun @param {(reset: any) => void} show */
  async run(dryRun, show) {
    this.setState({ busy: true, problem: "" });
    try {
      const body = dryRun ? { ...this.wanted(), dryRun } : this.wanted();
      let reset = await change("POST", this.resets(), body);
      show(reset);
      while (!isFinal(reset) && !this.ended && this.dialog.open) {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        reset = await read(`${this.resets()}/${encodeURIComponent(reset.name)}`);
        show(reset);
      }
    } catch (error) {
      const text = error.status ? error.message : `The request did not reach the server: ${error.message}`;
      this.setState({ problem: text });
    }
    this.setState({ busy: false });
  }

  planned(event) {
    event.preventDefault();
    if (!this.state.busy) this.run(true, (plan) => this.setState({ plan }));
  }

  confirmed() {
    if (!this.state.busy) this.run(false, (reset) => this.setState({ reset }));
  }

  render({ group, disabled }, state) {
    const { busy, problem, plan, reset } = state;
    const change = (field, value) => this.setState({ [field]: value, plan: null, reset: null, problem: "" });
    const done = plan?.status?.phase === "Succeeded";
    return html`
      <div class="buttons"><button type="button" aria-disabled=${disabled ? "true" : "false"}
        onClick=${() => !disabled && this.open()}>Reset offsets …</button></div>
      <dialog class="wide" ref=${(dialog) => (this.dialog = dialog)} aria-labelledby="reset-title">
        <h2 id="reset-title">Reset the offsets of ${group.name}</h2>
        <form class="fields" onSubmit=${(event) => this.planned(event)}>
          <label>Continue at
            <select value=${state.kind} onChange=${(event) => change("kind", event.target.value)}>
              ${KINDS.map(([kind, text]) => html`<option value=${kind}>${text}</option>`)}
            </select></label>
          ${state.kind === "Timestamp" &&
          html`<label>Time, in your time zone <input type="datetime-local" step="1" required value=${state.at}
            onInput=${(event) => change("at", event.target.value)} /></label>`}
          ${state.kind === "Shift" &&
          html`<label>Offsets, negative to read again <input type="number" step="1" required value=${state.by}
            onInput=${(event) => change("by", event.target.value)} /></label>`}
          <label>Topic
            <select value=${state.topic} onChange=${(event) => change("topic", event.target.value)}>
              <option value="">All topics</option>
              ${group.topics.map(({ name }) => html`<option value=${name}>${name}</option>`)}
            </select></label>
          <label class="check"><input type="checkbox" checked=${state.stop}
            onChange=${(event) => change("stop", event.target.checked)} /> Stop the workers for it, and start them again</label>
          <button type="submit" aria-disabled=${busy ? "true" : "false"}>Show what would change</button>
        </form>
        <p role="status" class=${problem ? "bad" : "note"}>${problem || progress(reset ?? plan, busy)}</p>
        ${plan && !reset && html`<${Plan} reset=${plan} />`}
        ${reset && html`<${Plan} reset=${reset} />`}
        <div class="buttons">
          ${done && !reset &&
          html`<button type="button" class="danger" aria-disabled=${busy ? "true" : "false"} onClick=${() => this.confirmed()}>
            Reset ${number(plan.status.totals?.changed ?? 0)} partitions</button>`}
          <button type="button" onClick=${() => this.dialog.close()}>${isFinal(reset) ? "Close" : "Cancel"}</button>
        </div>
      </dialog>`;
  }
}

/** One sentence: how far it is. */
function progress(reset, busy) {
  if (!reset) return busy ? "Asking …" : "";
  const { phase, message } = reset.status ?? {};
  return `${phase ?? "Pending"}${message ? `: ${message}` : " …"}`;
}

function Plan({ reset }) {
  const { partitions = [], totals } = reset.status ?? {};
  if (partitions.length === 0) return null;
  return html`
    ${totals && html`<p>Read again: <strong>${number(totals.again)}</strong> offsets. Not read: <strong>${number(totals.skipped)}</strong> offsets.</p>`}
    <div class="scroll" tabindex="0" role="region" aria-label="Plan"><table>
      <caption class="hidden">Plan</caption>
      <thead><tr>
        <th scope="col">Partition</th><th scope="col" class="numeric">Now</th><th scope="col" class="numeric">New</th>
        <th scope="col" class="numeric">Difference</th><th scope="col">Time of the record</th>
        <th scope="col" class="numeric">Log start</th><th scope="col" class="numeric">End</th><th scope="col">Note</th>
      </tr></thead>
      <tbody>${partitions.slice(0, ROWS).map(
        (it) => html`<tr key=${`${it.topic}-${it.partition}`}>
          <th scope="row">${it.topic}-${it.partition}</th>
          <td class="numeric">${number(it.committed)}</td><td class="numeric">${number(it.new)}</td>
          <td class="numeric">${number(it.difference)}</td><td>${time(it.recordTime)}</td>
          <td class="numeric">${number(it.logStart)}</td><td class="numeric">${number(it.end)}</td>
          <td class="text">${it.note ?? ""}</td>
        </tr>`,
      )}</tbody>
    </table></div>
    ${partitions.length > ROWS &&
    html`<p class="note">The first ${ROWS} of ${number(partitions.length)} partitions; all: kubectl get kor ${reset.name} -o yaml</p>`}`;
}
