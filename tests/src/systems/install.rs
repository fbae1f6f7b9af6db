//! Installs the operator as a user does: by Helm, from the chart of this repository. Once per test binary;
//! another install is harmless. The images must be in the cluster already (`scripts/test.sh` loads them).

use anyhow::{Context, Result, anyhow};
use tokio::sync::{Mutex, OnceCell};

use crate::systems::{command, env::Env};

/// Namespace, release, Deployment and service account of the operator.
pub const OPERATOR: &str = "kafka-consumer-operator";

/// The user name of the operator in the audit log.
pub const OPERATOR_USER: &str = "system:serviceaccount:kafka-consumer-operator:kafka-consumer-operator";

/// Keeps a failure too: every test of the binary then fails at once with the same reason.
static INSTALLED: OnceCell<Result<(), String>> = OnceCell::const_new();

/// Helm must not find CRDs that another test is about to label.
static ONE_INSTALLATION: Mutex<()> = Mutex::const_new(());

/// Makes sure that the operator is installed and ready.
pub async fn operator(env: &Env) -> Result<()> {
    let _one = ONE_INSTALLATION.lock().await;
    INSTALLED
        .get_or_init(|| async { helm_install(env).await.map_err(|error| format!("{error:#}")) })
        .await
        .clone()
        .map_err(|error| anyhow!("cannot install the operator: {error}"))
}

/// Makes sure that the CRDs are installed. Helm takes them over if it installs the operator later.
pub async fn crds(env: &Env) -> Result<()> {
    let _one = ONE_INSTALLATION.lock().await;
    for crd in crds::crd::all() {
        let name = format!("crd/{}.{}", crd.spec.names.plural, crd.spec.group);
        if command::run("kubectl", &["get", &name], None).await?.success {
            continue;
        }
        let file = env.repository.join("crds").join(crds::crd::file_name(&crd));
        let file = file.to_string_lossy();
        let release = format!("meta.helm.sh/release-name={OPERATOR}");
        let namespace = format!("meta.helm.sh/release-namespace={OPERATOR}");
        for arguments in [
            &["create", "-f", &file][..],
            &["label", &name, "app.kubernetes.io/managed-by=Helm"],
            &["annotate", &name, &release, &namespace],
            &["wait", "--for=condition=Established", &name],
        ] {
            command::run("kubectl", arguments, None)
                .await?
                .ok("installing the CRDs")?;
        }
    }
    Ok(())
}

async fn helm_install(env: &Env) -> Result<()> {
    let (operator_repository, operator_tag) = split(&env.operator_image)?;
    let (worker_repository, worker_tag) = split(&env.worker_image)?;
    let chart = env.repository.join("charts/kafka-consumer-operator");
    let settings = [
        format!("image.repository={operator_repository}"),
        format!("image.tag={operator_tag}"),
        format!("workerImage.repository={worker_repository}"),
        format!("workerImage.tag={worker_tag}"),
        "log.level=info\\,operator=debug".to_string(),
    ];
    let mut arguments = vec!["upgrade", "--install", OPERATOR];
    let chart = chart.to_string_lossy();
    arguments.push(&chart);
    arguments.extend([
        "--namespace",
        OPERATOR,
        "--create-namespace",
        "--wait",
        "--timeout",
        "3m",
    ]);
    for setting in &settings {
        arguments.extend(["--set-string", setting]);
    }
    let output = command::run("helm", &arguments, None).await?;
    if !output.success {
        println!("{}", operator_report().await);
    }
    output.ok("helm upgrade --install").map(drop)
}

fn split(image: &str) -> Result<(&str, &str)> {
    image
        .rsplit_once(':')
        .with_context(|| format!("image {image} has no tag"))
}

/// The operator's pods and the end of its log.
pub async fn operator_report() -> String {
    let namespace = ["--namespace", OPERATOR];
    let mut text = section(&[&namespace[..], &["get", "pods", "-o", "wide"]].concat()).await;
    text += &section(&[&namespace[..], &["get", "events", "--sort-by=.lastTimestamp"]].concat()).await;
    let log = [
        "logs",
        "--tail=80",
        "--prefix",
        "-l",
        "app.kubernetes.io/name=kafka-consumer-operator",
    ];
    text + &section(&[&namespace[..], &log].concat()).await
}

/// A heading and the output of kubectl, for the report of a failure.
pub(crate) async fn section(arguments: &[&str]) -> String {
    match command::run("kubectl", arguments, None).await {
        Ok(output) => format!(
            "--- kubectl {}\n{}{}\n",
            arguments.join(" "),
            output.stdout,
            output.stderr
        ),
        Err(error) => format!("--- kubectl {}: {error:#}\n", arguments.join(" ")),
    }
}
