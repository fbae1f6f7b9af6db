// The page that asks for a token of the cluster.
import { html, Component } from "./html.js";
import { read, session } from "./session.js";

export class Login extends Component {
  constructor(props) {
    super(props);
    this.state = { busy: false, text: props.why ?? "" };
  }

  async submitted(event) {
    event.preventDefault();
    // Not the state, which changes with the next render: Enter may come twice.
    if (this.busy) return;
    this.busy = true;
    session.token = this.input.value.trim().replace(/^Bearer\s+/i, "");
    this.setState({ busy: true, text: "" });
    try {
      const me = await read("/api/v1/me");
      this.props.onLogin(me);
    } catch (error) {
      session.token = null;
      this.busy = false;
      this.setState({ busy: false, text: error.message });
      this.input.focus();
    }
  }

  render(_, { busy, text }) {
    return html`<main class="login">
      <h1>Log in</h1>
      <p>Paste a token that the API server of this cluster accepts. You see and change what the token may see and
      change with <code>kubectl</code>. This tab keeps the token until you close it or log out.</p>
      <form onSubmit=${(event) => this.submitted(event)}>
        <label for="token">Token</label>
        <input id="token" type="password" required autocomplete="off" spellcheck="false" aria-describedby="token-how token-bad"
          ref=${(input) => (this.input = input)} />
        <button type="submit" aria-disabled=${busy ? "true" : "false"}>Log in</button>
      </form>
      <p id="token-bad" role="alert" class="bad">${text}</p>
      <p id="token-how" class="note">A token of a service account, for an hour:${" "}
      <code>kubectl -n NAMESPACE create token NAME</code></p>
    </main>`;
  }
}
