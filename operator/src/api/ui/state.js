// The buttons that start, pause and stop a group, scale it, restart its workers and reset its offsets. What the user may not do has
// no button.
import { html, Component } from "./html.js";
import { Reset } from "./reset.js";
import { change, read } from "./session.js";

const STATES = [
  ["Running", "Run"],
  ["Paused", "Pause"],
  ["Stopped", "Stop"],
];
/** Rights change seldom; the server asks again after a minute as well. */
const RIGHTS_MS = 60000;

const STOP = `The workers finish the records that they have read, commit and end. The lag then grows. Committed
  offsets stay; Run continues there.`;

export class StateButtons extends Component {
  constructor(props) {
    super(props);
    // `typed`: the number of workers as the user has typed it. The group changes about once a second and must
    // not change it.
    this.state = { busy: false, text: "", failed: false, actions: null, asked: null, typed: null };
  }

  componentDidMount() {
    this.loadActions();
    this.timer = setInterval(() => this.loadActions(), RIGHTS_MS);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
  }

  path() {
    const { group } = this.props;
    return [group.namespace, group.name].map(encodeURIComponent).join("/");
  }

  async loadActions() {
    try {
      const { group } = this.props;
      const me = await read(`/api/v1/me?group=${encodeURIComponent(`${group.namespace}/${group.name}`)}`);
      this.setState({ actions: me.actions });
    } catch (error) {
      // Without an answer, the buttons stay as they are; a change is checked by the server anyway.
      if (this.state.actions === null) this.setState({ text: error.message, failed: true });
    }
  }

  /** Sends a change and shows the answer. */
  async send(method, path, body, done) {
    this.setState({ busy: true, text: "", failed: false });
    try {
      const answer = await change(method, `/api/v1/groups/${this.path()}/${path}`, body);
      const text = done(answer);
      this.setState({ text: answer.warning ? `${text} Note: ${answer.warning}.` : text });
    } catch (error) {
      const text = error.status ? error.message : `The request did not reach the server: ${error.message}`;
      this.setState({ text, failed: true });
    }
    this.setState({ busy: false });
  }

  request(desiredState, force) {
    const done = (answer) =>
      answer.changed ? `${desiredState} was requested.` : `The group is ${desiredState} already.`;
    this.send("PUT", `state${force ? "?force=true" : ""}`, { desiredState }, done);
  }

  scale(replicas, force) {
    const done = (answer) =>
      answer.changed ? `${replicas} workers were requested.` : `The group has ${replicas} workers already.`;
    this.send("PUT", `scale${force ? "?force=true" : ""}`, { replicas }, done);
  }

  /** Asks first, if the change needs it. @param {{title: string, text: string, button: string, run: () => void}} asked */
  ask(asked) {
    this.setState({ asked }, () => this.dialog.showModal());
  }

  managed(action, field) {
    return action.managedBy ? `${action.managedBy} owns spec.${field} and will put it back, unless you change it there too.` : "";
  }

  clicked(state) {
    // Not the attribute disabled: it would take the focus away.
    if (this.state.busy || this.props.disabled) return;
    const { group } = this.props;
    const managed = this.managed(this.state.actions.state, "desiredState");
    const run = () => this.request(state, managed !== "");
    if (group.desiredState === state) run();
    else if (state === "Stopped")
      this.ask({ title: `Stop ${group.name}?`, text: `${managed} ${STOP}`, button: "Stop the group", run });
    else if (managed) this.ask({ title: `Request ${state}?`, text: managed, button: "Change it anyway", run });
    else run();
  }

  scaled(event) {
    event.preventDefault();
    if (this.state.busy || this.props.disabled) return;
    const replicas = this.replicas.valueAsNumber;
    if (!Number.isInteger(replicas)) return;
    const managed = this.managed(this.state.actions.scale, "replicas");
    const run = () => this.scale(replicas, managed !== "");
    if (managed) this.ask({ title: `Request ${replicas} workers?`, text: managed, button: "Change it anyway", run });
    else run();
  }

  restart() {
    if (this.state.busy || this.props.disabled) return;
    const run = () => this.send("POST", "restart", {}, () => "A restart of the workers was requested.");
    const text = "Kubernetes replaces the workers step by step. Each commits before it ends; partitions move to other workers meanwhile.";
    this.ask({ title: "Restart the workers?", text, button: "Restart the workers", run });
  }

  render({ group, disabled }, { busy, text, failed, actions, asked, typed }) {
    const off = busy || disabled ? "true" : "false";
    const notes = actions
      ? [
          actions.state.allowed ? this.managed(actions.state, "desiredState") : actions.state.why,
          actions.scale.allowed ? this.managed(actions.scale, "replicas") : "",
        ].filter(Boolean)
      : [];
    return html`
      ${actions?.state.allowed &&
      html`<div class="buttons" role="group" aria-label="State of the group">
        ${STATES.map(
          ([state, label]) => html`<button
            type="button"
            aria-pressed=${group.desiredState === state ? "true" : "false"}
            aria-disabled=${off}
            onClick=${() => this.clicked(state)}
          >${label}</button>`,
        )}
      </div>`}
      ${actions && !actions.state.allowed && html`<p>Requested state: <strong>${group.desiredState}</strong></p>`}
      ${actions?.scale.allowed &&
      html`<form class="buttons" onSubmit=${(event) => this.scaled(event)}>
        <label>Workers <input type="number" min="1" max="10000" required value=${typed ?? group.workersDesired}
          onInput=${(event) => this.setState({ typed: event.target.value })}
          ref=${(input) => (this.replicas = input)} /></label>
        <button type="submit" aria-disabled=${off}>Scale</button>
      </form>`}
      ${actions?.restart.allowed &&
      html`<div class="buttons"><button type="button" aria-disabled=${off} onClick=${() => this.restart()}>Restart the workers</button></div>`}
      ${actions?.reset.allowed && html`<${Reset} group=${group} disabled=${busy || disabled} />`}
      ${notes.map((note) => html`<p class="note" key=${note}>${note}</p>`)}
      <p role="status" class=${failed ? "answer bad" : "answer"}>${text}</p>
      <dialog ref=${(dialog) => (this.dialog = dialog)} aria-labelledby="asked-title">
        <h2 id="asked-title">${asked?.title ?? "Are you sure?"}</h2>
        <p>${asked?.text}</p>
        <form method="dialog" class="buttons">
          <button type="submit" class="danger" onClick=${() => asked?.run()}>${asked?.button ?? "Yes"}</button>
          <button type="submit" autofocus>Cancel</button>
        </form>
      </dialog>`;
  }
}
