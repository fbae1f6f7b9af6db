//! What workers show: metrics, `/status`, logs. Read through the API server, which reaches every pod from
//! wherever the tests run.

use anyhow::{Context, Result};
use crds::names;
use kube::ResourceExt;

use crate::systems::world::World;

impl World {
    /// A page of a worker's HTTP server, such as "metrics" or "status".
    pub async fn worker_page(&self, pod: &str, page: &str) -> Result<String> {
        let url = format!(
            "/api/v1/namespaces/{}/pods/{pod}:{}/proxy/{page}",
            self.namespace,
            names::WORKER_HTTP_PORT
        );
        self.kubectl(&["get", "--raw", &url], None)
            .await?
            .ok(&format!("reading {page} of {pod}"))
    }

    /// A metric of all workers of a group, summed over its labels; an error, not 0, if no worker has it.
    pub async fn workers_metric(&self, group: &str, name: &str) -> Result<f64> {
        let mut total = None;
        for pod in self.workers(group).await? {
            let page = self.worker_page(&pod.name_any(), "metrics").await?;
            if let Some(value) = sum(&page, name) {
                total = Some(total.unwrap_or(0.0) + value);
            }
        }
        total.with_context(|| format!("no worker of {group} has the metric {name}"))
    }

    /// The logs of all workers of a group, including those of restarted containers.
    pub async fn worker_logs(&self, group: &str) -> Result<String> {
        let mut logs = String::new();
        for pod in self.workers(group).await? {
            let name = pod.name_any();
            logs += &self.kubectl(&["logs", &name], None).await?.ok("kubectl logs")?;
            // There is no previous log if the container was never restarted.
            logs += &self.kubectl(&["logs", "--previous", &name], None).await?.stdout;
        }
        Ok(logs)
    }
}

/// Sum of all series of a metric in the OpenMetrics text.
pub(crate) fn sum(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse::<f64>().ok()
    });
    values.fold(None, |total, value| Some(total.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_metric_are_added_up_and_no_others() {
        let page =
            "# TYPE a counter\na_total{kind=\"x\"} 2\na_total{kind=\"{y}\"} 3\na_total_more 7\nb 1\n# EOF\n";
        assert_eq!(sum(page, "a_total"), Some(5.0));
        assert_eq!(sum(page, "b"), Some(1.0));
        assert_eq!(sum(page, "c"), None);
    }
}
