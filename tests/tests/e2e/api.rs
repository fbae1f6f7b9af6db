//! The REST API in a cluster, served by an operator that runs outside of it: tokens, rights, changes in the name
//! of the user, GitOps ownership, live data, and the login of the dashboard in a real browser.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use harness::systems::audit::Mark;
use harness::systems::browser::Browser;
use harness::systems::command;
use harness::systems::local::{Process, program};
use harness::systems::world::scenario_without_operator;
use harness::{Message, World, until};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey};
use openssl::sign::Signer;
use serde_json::{Value, json};

use crate::dashboard::{axe, picture};

#[tokio::test(flavor = "multi_thread")]
async fn users_see_and_change_what_their_token_allows_and_the_audit_log_names_them() -> Result<()> {
    scenario_without_operator("api", async |world| {
        let topic = world.topic("orders", 2).await?;
        let letters = world.topic("orders.dlq", 1).await?;
        world
            .apply_group(
                "orders",
                json!({
                    "topics": [{"name": topic}],
                    "writers": [{"name": "nowhere", "type": "Blackhole"}],
                    "scaling": {"mode": "Manual"}, "replicas": 1,
                    "errorHandling": {"deadLetter": {"topic": letters}},
                }),
            )
            .await?;
        let mut users = Users::create(world).await?;
        let (_operator, url) = operator(world).await?;
        let api = Api {
            url,
            http: reqwest::Client::builder().no_proxy().build()?,
            namespace: world.namespace.clone(),
        };
        until(
            "the API shows the group and the operator has created its workers",
            async || {
                let (status, answer) = api.ask(&users.writer, "GET", "/api/v1/groups", None).await?;
                ensure!(status == 200 && answer["total"] == 1, "{status} {answer}");
                let workers = ["get", "deployment", "orders-worker"];
                world.kubectl(&workers, None).await?.ok("kubectl get").map(drop)
            },
        )
        .await?;

        println!("every kind of token on every route");
        matrix(&api, &mut users).await?;

        println!("changes, live and in the name of the user");
        changes(world, &api, &users).await?;

        println!("fields that a GitOps tool owns");
        gitops(world, &api, &users).await?;

        println!("the dashboard, with a login");
        let one = |partition| Message {
            value: Some(b"1".to_vec()),
            partition: Some(partition),
            ..Message::default()
        };
        world.kafka.produce(&topic, [one(0), one(1)]).await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &topic)
            .await?;
        pages(&api, &users).await
    })
    .await
}

/// Tokens of service accounts with different rights.
struct Users {
    nobody: String,
    reader: String,
    writer: String,
    other_audience: String,
    expired: Option<String>,
}

impl Users {
    async fn create(world: &World) -> Result<Self> {
        let role = |name: &str, rules: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules});
        let read = json!({"apiGroups": ["kafka-consumer.dev"], "resources": ["kafkaconsumergroups", "kafkaoffsetresets"], "verbs": ["get", "list"]});
        let reset = json!({"apiGroups": ["kafka-consumer.dev"], "resources": ["kafkaoffsetresets"], "verbs": ["create", "delete"]});
        let events = json!({"apiGroups": [""], "resources": ["events"], "verbs": ["list"]});
        let letters = json!({"apiGroups": ["kafka-consumer.dev"], "resources": ["kafkaconsumergroups/deadletters"], "verbs": ["get"]});
        let patch = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["patch"]});
        let write = json!([
            read,
            events,
            reset,
            letters,
            patch("kafka-consumer.dev", "kafkaconsumergroups"),
            patch("kafka-consumer.dev", "kafkaconsumergroups/scale"),
            patch("apps", "deployments"),
        ]);
        world
            .apply(&role("reader", json!([read, events])).to_string())
            .await?;
        world.apply(&role("writer", write).to_string()).await?;
        for name in ["nobody", "reader", "writer"] {
            world
                .apply(
                    &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
                        .to_string(),
                )
                .await?;
        }
        for name in ["reader", "writer"] {
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": world.namespace}],
            });
            world.apply(&binding.to_string()).await?;
        }
        let token = async |arguments: &[&str]| {
            let arguments = [&["create", "token"], arguments].concat();
            let printed = world
                .kubectl(&arguments, None)
                .await?
                .ok("kubectl create token")?;
            Ok::<_, anyhow::Error>(printed.trim().to_string())
        };
        Ok(Self {
            nobody: token(&["nobody"]).await?,
            reader: token(&["reader"]).await?,
            writer: token(&["writer"]).await?,
            other_audience: token(&["writer", "--audience=other"]).await?,
            expired: None,
        })
    }

    /// The token of the writer, signed again with another end. Needs the key of the cluster.
    fn ends_in(&self, seconds: i64) -> Result<Option<String>> {
        let Ok(state) = std::env::var("KCG_STATE") else {
            return Ok(None);
        };
        let Some(pem) = find_key(std::path::Path::new(&state)) else {
            return Ok(None);
        };
        let key = PKey::private_key_from_pem(&pem)?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs() as i64;
        let part = self.writer.split('.').nth(1).context("no claims")?;
        let mut claims: Value = serde_json::from_slice(&decode(part)?)?;
        claims["exp"] = (now + seconds).into();
        claims["iat"] = (now - 7200).into();
        claims["nbf"] = (now - 7200).into();
        let name = if key.id() == Id::EC { "ES256" } else { "RS256" };
        let signed = format!(
            "{}.{}",
            encode(json!({"alg": name, "typ": "JWT"}).to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
        let mut signature = signer.sign_oneshot_to_vec(signed.as_bytes())?;
        if key.id() == Id::EC {
            let parts = EcdsaSig::from_der(&signature)?;
            signature = [parts.r().to_vec_padded(32)?, parts.s().to_vec_padded(32)?].concat();
        }
        Ok(Some(format!("{signed}.{}", encode(&signature))))
    }
}

/// The key that signs tokens of service accounts.
fn find_key(state: &std::path::Path) -> Option<Vec<u8>> {
    let places = [
        "service-account.key",
        "certs/service-account.key",
        "kubernetes/service-account.key",
    ];
    places
        .iter()
        .find_map(|place| std::fs::read(state.join(place)).ok())
}

/// Base64 of URLs, as tokens have it.
fn encode(bytes: &[u8]) -> String {
    let text = openssl::base64::encode_block(bytes);
    text.replace('+', "-").replace('/', "_").replace('=', "")
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let mut text = text.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    Ok(openssl::base64::decode_block(&text)?)
}

/// An operator as a process of this machine, and the address of its API.
async fn operator(world: &World) -> Result<(Process, String)> {
    let arguments = [
        "run",
        "--worker-image",
        &world.env.worker_image,
        "--namespaces",
        &world.namespace,
        "--lease-namespace",
        &world.namespace,
        "--http-address",
        "127.0.0.1:0",
        "--api-listen",
        "127.0.0.1:0",
    ];
    let mut operator = Process::start(&program("kafka-consumer-operator")?, &arguments)?;
    let line = operator.until_prints("REST API and dashboard: ").await?;
    let url = line.split_whitespace().find(|word| word.starts_with("http"));
    let url = url.context("no address")?.trim_end_matches('/').to_string();
    Ok((operator, url))
}

struct Api {
    url: String,
    http: reqwest::Client,
    namespace: String,
}

impl Api {
    fn request(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<reqwest::RequestBuilder> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        Ok(request)
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let response = self.request(token, method, path, body.as_ref())?.send().await?;
        let status = response.status().as_u16();
        if path.contains("/watch") && status == 200 {
            return Ok((status, Value::Null));
        }
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    fn group(&self, part: &str) -> String {
        format!("/api/v1/groups/{}/orders{part}", self.namespace)
    }
}

async fn matrix(api: &Api, users: &mut Users) -> Result<()> {
    // The same token that has not expired is accepted: only its end makes the difference.
    users.expired = users.ends_in(-60)?;
    if let Some(valid) = users.ends_in(3600)? {
        let (status, answer) = api.ask(&valid, "GET", "/api/v1/groups", None).await?;
        assert_eq!(status, 200, "{answer}");
    }
    let (_, document) = api.ask("", "GET", "/api/v1/openapi.json", None).await?;
    let paths = document["paths"].as_object().context("no paths")?;
    for (path, methods) in paths {
        for method in methods.as_object().context("no methods")?.keys() {
            let body = match path.rsplit('/').next() {
                // The state that the group has: the next part changes it.
                Some("state") => Some(json!({"desiredState": "Running"})),
                Some("scale") => Some(json!({"replicas": 1})),
                Some("offset-resets") => Some(json!({"to": {"type": "Latest"}, "dryRun": true})),
                _ => None,
            };
            let is_read = method == "get";
            let about = path == "/api/v1/me" || path == "/api/v1/version";
            let path = path
                .replace("{namespace}", &api.namespace)
                .replace("{name}", "orders")
                .replace("{reset}", "none")
                .replace("{partition}/{offset}", "0/0");
            // A list of all namespaces has those that the user may see.
            for (token, read, write) in [
                ("", 401, 401),
                ("garbage", 401, 401),
                (users.expired.as_deref().unwrap_or("expired"), 401, 401),
                (&users.other_audience, 401, 401),
                (&users.nobody, if about { 200 } else { 403 }, 403),
                (&users.reader, 200, 403),
                (
                    &users.writer,
                    200,
                    match path.rsplit('/').next() {
                        Some("restart") => 202,
                        Some("offset-resets") => 201,
                        _ => 200,
                    },
                ),
            ] {
                let letters = path.contains("/dead-letters");
                let expected = match (is_read, path.ends_with("/none")) {
                    // To see records is a separate right, and there are none.
                    _ if letters && token == users.reader => 403,
                    _ if path.ends_with("/dead-letters/0/0") && read == 200 => 404,
                    (_, true) if read == 200 => 404,
                    (true, _) => read,
                    (false, _) => write,
                };
                let path = if path.ends_with("/watch") {
                    format!("{path}?groups={}/orders", api.namespace)
                } else {
                    path.clone()
                };
                let (status, answer) = api
                    .ask(token, &method.to_uppercase(), &path, body.clone())
                    .await?;
                assert_eq!(status, expected, "{method} {path}: {answer}");
                assert!(status != 401 || answer["reason"].is_string(), "{answer}");
            }
        }
    }
    Ok(())
}

async fn changes(world: &World, api: &Api, users: &Users) -> Result<()> {
    let mark = Mark::now(&world.env);
    let path = format!("/api/v1/watch?groups={}/orders", api.namespace);
    let mut stream = api.request(&users.reader, "GET", &path, None)?.send().await?;
    let mut seen = String::new();
    let (status, answer) = api
        .ask(
            &users.writer,
            "PUT",
            &api.group("/state"),
            Some(json!({"desiredState": "Paused"})),
        )
        .await?;
    assert_eq!((status, &answer["changed"]), (202, &true.into()), "{answer}");
    let (status, answer) = api
        .ask(
            &users.writer,
            "PUT",
            &api.group("/scale"),
            Some(json!({"replicas": 2})),
        )
        .await?;
    assert_eq!(status, 202, "{answer}");
    tokio::time::timeout(Duration::from_secs(60), async {
        while !seen.contains("\"desiredState\":\"Paused\"") {
            let chunk = stream.chunk().await?.context("the stream has ended")?;
            seen += &String::from_utf8_lossy(&chunk);
        }
        Ok::<_, anyhow::Error>(())
    })
    .await
    .with_context(|| seen.clone())??;
    assert!(seen.starts_with("event: snapshot"), "{seen}");

    let user = format!("system:serviceaccount:{}:writer", world.namespace);
    let shown = ["get", "kcg", "orders", "-o", "json", "--show-managed-fields"];
    let group: Value = serde_json::from_str(&world.kubectl(&shown, None).await?.ok("kubectl get")?)?;
    assert_eq!(
        (&group["spec"]["desiredState"], &group["spec"]["replicas"]),
        (&"Paused".into(), &2.into())
    );
    let managers = group["metadata"]["managedFields"].to_string();
    assert!(
        managers.contains(&format!("kafka-consumer-api:{user}")),
        "{managers}"
    );
    // A cluster of others may have no audit log that can be read here.
    if let Ok(mark) = mark {
        until("the audit log names the user", async || {
            let writes = mark.writes_of(&user)?;
            for resource in ["kafkaconsumergroups", "kafkaconsumergroups/scale"] {
                ensure!(
                    writes
                        .iter()
                        .any(|it| it.verb == "patch" && it.resource == resource),
                    "{resource}: {writes:?}"
                );
            }
            Ok(())
        })
        .await?;
    }
    let restarted = [
        "get",
        "deployment",
        "orders-worker",
        "-o",
        "jsonpath={.spec.template.metadata.annotations}",
    ];
    let annotations = world.kubectl(&restarted, None).await?.ok("kubectl get")?;
    assert!(
        annotations.contains("kubectl.kubernetes.io/restartedAt"),
        "{annotations}"
    );
    Ok(())
}

async fn gitops(world: &World, api: &Api, users: &Users) -> Result<()> {
    let applied = json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1", "kind": "KafkaConsumerGroup",
        "metadata": {"name": "orders", "namespace": world.namespace},
        "spec": {"desiredState": "Paused"},
    });
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=argocd-controller",
        "-f",
        "-",
    ];
    command::run("kubectl", &arguments, Some(&applied.to_string()))
        .await?
        .ok("kubectl apply")?;
    let body = Some(json!({"desiredState": "Running"}));
    let (status, answer) = api
        .ask(&users.writer, "PUT", &api.group("/state"), body.clone())
        .await?;
    assert_eq!(
        (status, &answer["reason"]),
        (409, &"ManagedByGitOps".into()),
        "{answer}"
    );
    let path = format!("/api/v1/me?group={}/orders", api.namespace);
    let (_, me) = api.ask(&users.writer, "GET", &path, None).await?;
    assert_eq!(me["actions"]["state"]["managedBy"], "Argo CD", "{me}");
    let (status, answer) = api
        .ask(&users.writer, "PUT", &api.group("/state?force=true"), body)
        .await?;
    assert_eq!(status, 202, "{answer}");
    Ok(())
}

async fn pages(api: &Api, users: &Users) -> Result<()> {
    let browser = Browser::start().await?;
    browser.size(1280, 1400).await?;
    browser
        .open(&format!("{}{}", api.url, api.group("").replace("/api/v1", "")))
        .await?;
    browser
        .until("a token is asked for", "document.querySelector('#token')")
        .await?;
    axe(&browser, "login").await?;
    let log_in = async |token: &str| {
        let fill = format!(
            "document.querySelector('#token').value = {}; document.querySelector('form').requestSubmit();",
            json!(token)
        );
        browser.run(&fill).await.map(drop)
    };
    log_in("garbage").await?;
    browser
        .until(
            "a false token is refused with the reason",
            "document.querySelector('#token-bad')?.innerText.includes('does not accept the token')",
        )
        .await?;
    picture(&browser, "login").await?;
    log_in(&users.reader).await?;
    browser
        .until(
            "a reader sees the group and no buttons",
            "document.querySelector('main.live h1')?.innerText.endsWith('/orders') && document.body.innerText.includes('you may not patch') && !document.querySelector('.buttons button[aria-pressed]')",
        )
        .await?;
    browser
        .run("[...document.querySelectorAll('button')].find((it) => it.innerText === 'Log out').click()")
        .await?;
    browser
        .until(
            "the token is forgotten",
            "document.querySelector('#token') && sessionStorage.length === 0",
        )
        .await?;
    println!("a login that is sent twice opens one stream");
    browser
        .run("const real = window.fetch; window.streams = 0; window.fetch = (...all) => { if (String(all[0]).includes('/watch')) window.streams++; return real(...all); };")
        .await?;
    let twice = format!(
        "document.querySelector('#token').value = {}; const form = document.querySelector('form'); form.requestSubmit(); form.requestSubmit();",
        json!(users.writer)
    );
    browser.run(&twice).await?;
    browser
        .until(
            "a writer has the buttons",
            "window.streams === 1 && document.querySelector('.buttons button[aria-pressed=true]')?.innerText === 'Run' && document.body.innerText.includes('Restart the workers') && document.querySelector('input[type=number]')",
        )
        .await?;
    axe(&browser, "a group in a cluster").await?;
    picture(&browser, "cluster-group").await?;
    reset_offsets(&browser).await?;
    println!("a number that is typed stays when the group changes");
    browser
        .run("const input = document.querySelector('input[type=number]'); input.value = '7'; input.dispatchEvent(new Event('input', {bubbles: true})); document.querySelectorAll('.buttons button[aria-pressed]')[1].click();")
        .await?;
    browser
        .until(
            "the page shows the requested state, and what was typed",
            "document.querySelector('.buttons button[aria-pressed=true]')?.innerText === 'Pause' && document.querySelector('input[type=number]').value === '7'",
        )
        .await
}

/// The dialog shows what would change, and then does it: the group has two records that it does not have to
/// read.
async fn reset_offsets(browser: &Browser) -> Result<()> {
    println!("offsets are reset after a look at the plan");
    let press = |text: &str| {
        format!(
            "[...document.querySelectorAll('button')].find((it) => it.innerText.startsWith({})).click()",
            json!(text)
        )
    };
    browser.run(&press("Reset offsets")).await?;
    browser
        .until("the dialog is open", "document.querySelector('dialog.wide').open")
        .await?;
    browser.run(&press("Show what would change")).await?;
    browser
        .until(
            "the plan has both partitions",
            "document.querySelectorAll('dialog.wide tbody tr').length === 2 && document.querySelector('dialog.wide [role=status]').innerText.includes('Succeeded')",
        )
        .await?;
    axe(browser, "the dialog that resets offsets").await?;
    picture(browser, "offset-reset").await?;
    browser.run(&press("Reset 2 partitions")).await?;
    browser
        .until(
            "the offsets are reset",
            "document.querySelector('dialog.wide [role=status]').innerText.includes('changed the offsets')",
        )
        .await?;
    let text = browser
        .run("return document.querySelector('dialog.wide').innerText")
        .await?;
    let text = text.as_str().unwrap_or_default();
    assert!(
        text.contains("Succeeded") && text.contains("Read again: 2 offsets"),
        "{text}"
    );
    browser.run(&press("Close")).await.map(drop)
}
