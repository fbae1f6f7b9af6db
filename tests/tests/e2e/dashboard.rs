//! The dashboard of local mode in a real browser: what the pages show, the buttons, the keyboard, a stream that
//! is cut and comes back, both themes, a narrow page, accessibility (axe-core). Needs Chromium and no cluster.
//! Screenshots stay in `target/dashboard`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::alone;
use harness::systems::browser::{Browser, keys};
use harness::systems::local::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::local_mode::{embedded, group, start, write};

const AXE: &str = include_str!("../../vendor/axe.min.js");

/// Text of a program's error that would be an element if a page took it for HTML.
const MARKUP: &str = "<img id=markup src=x onerror=document.title='broken'>";

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_a_group_and_changes_its_state() -> Result<()> {
    let _alone = alone().await;
    let folder = TempDir::new()?;
    let source = format!("assert!(.bad == false, message: \"{MARKUP}\")");
    let file = write(
        &folder,
        "orders.yaml",
        &group(json!({
            "topics": [{"name": "orders", "provision": {"partitions": 3}}],
            "decode": {"value": {"type": "Json"}},
            "transforms": [{"name": "check", "type": "Vrl", "vrl": {"source": source}}],
            "writers": [{"name": "shipped", "type": "Kafka", "kafka": {"topic": "shipped"}}],
        })),
    )?;
    let (mut local, url) = serve(&file, "127.0.0.1:0").await?;
    let kafka = embedded(&mut local).await?;
    let records = |value: &'static str, count: usize| {
        (0..count).map(move |_| harness::Message {
            value: Some(value.as_bytes().to_vec()),
            partition: Some(0),
            ..harness::Message::default()
        })
    };
    kafka.produce("orders", records(r#"{"bad": false}"#, 50)).await?;
    let browser = Browser::start().await?;
    the_demo(&browser).await?;
    browser.size(1280, 1400).await?;
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    for (listen, part) in [(address, "--api-listen"), ("0.0.0.0:0", "--api-allow-remote")] {
        let (code, printed) = start(&["-f", &file, "--embedded-kafka", "--api-listen", listen])?
            .end()
            .await?;
        assert!(code == 1 && printed.contains(part), "{listen}: {code}, {printed}");
    }

    println!("groups: a row per group, live");
    browser.open(&url).await?;
    browser
        .until(
            "the list shows the group as ready",
            "document.querySelector('tbody')?.innerText.includes('AllPartitionsConsumed')",
        )
        .await?;
    check_page(&browser, "groups").await?;
    browser.open(&format!("{url}?search=nothing")).await?;
    browser
        .until(
            "an empty result is explained",
            "document.body.innerText.includes('No group matches')",
        )
        .await?;
    five_thousand_groups(&browser, &url).await?;

    println!("one group: conditions, partitions, workers");
    browser.open(&format!("{url}groups/default/orders")).await?;
    browser
        .until(
            "the group is ready",
            "document.querySelector('.lead')?.innerText.includes('Ready')",
        )
        .await?;
    browser
        .until(
            "50 records are finished",
            "document.querySelector('.numbers').innerText.includes('50')",
        )
        .await?;
    browser
        .until(
            "the chart has a line",
            "document.querySelector('.chart canvas') !== null",
        )
        .await?;

    println!("a record that stops its partition is shown with its error, as text");
    kafka.produce("orders", records(r#"{"bad": true}"#, 1)).await?;
    browser
        .until(
            "the partition, the offset and the error",
            "document.querySelector('.attention')?.innerText.includes('orders-0 at offset 50: RecordFailed')",
        )
        .await?;
    let shown = browser
        .run("return [document.querySelector('.attention pre').textContent, document.querySelector('#markup'), document.title]")
        .await?;
    assert!(shown[0].as_str().unwrap_or_default().contains(MARKUP), "{shown}");
    assert!(shown[1].is_null() && shown[2] != "broken", "{shown}");
    check_page(&browser, "group").await?;

    println!("state buttons, by keyboard");
    tab_to(&browser, "Pause").await?;
    browser.key(keys::ENTER).await?;
    browser
        .until(
            "the button is pressed and the file is named",
            "document.querySelector('button[aria-pressed=true]').innerText === 'Pause' && document.querySelector('.answer').innerText.includes('orders.yaml')",
        )
        .await?;
    tab_to(&browser, "Stop").await?;
    browser.key(keys::ENTER).await?;
    browser
        .until("a dialog asks", "document.querySelector('dialog').open")
        .await?;
    axe(&browser, "the dialog").await?;
    picture(&browser, "dialog").await?;
    browser.key(keys::ESCAPE).await?;
    browser
        .until(
            "the focus is back on the button, and nothing was stopped",
            "!document.querySelector('dialog').open && document.activeElement.innerText === 'Stop' && document.querySelector('button[aria-pressed=true]').innerText === 'Pause'",
        )
        .await?;
    browser.key(keys::ENTER).await?;
    browser
        .run("document.querySelector('dialog .danger').click()")
        .await?;
    browser
        .until(
            "no worker runs",
            "document.querySelector('.lead').innerText.includes('no workers run, as desiredState requests')",
        )
        .await?;

    println!("a stream that is cut, and comes back");
    local.interrupt().await?;
    browser
        .until(
            "the page says that its numbers are old",
            "document.querySelector('main.lost') !== null && document.querySelector('.age')?.innerText.includes('old') && document.querySelector('.buttons button').ariaDisabled === 'true'",
        )
        .await?;
    axe(&browser, "a lost stream").await?;
    picture(&browser, "lost").await?;
    let (code, printed) = local.end().await?;
    assert_eq!(code, 0, "{printed}");
    let (local, _) = serve(&file, address).await?;
    browser
        .until(
            "the page is live again, with the state of the file",
            "document.querySelector('main.live') !== null && document.querySelector('button[aria-pressed=true]').innerText === 'Run'",
        )
        .await?;
    browser.open(&format!("{url}groups/default/nothing")).await?;
    browser
        .until(
            "a missing group is explained",
            "document.body.innerText.includes('There is no group')",
        )
        .await?;
    browser.open(&format!("{url}docs/")).await?;
    browser
        .until(
            "Swagger UI shows the routes",
            "document.body.innerText.includes('/api/v1/groups/{namespace}/{name}/state')",
        )
        .await?;
    local.interrupt().await?;
    assert_eq!(local.end().await?.0, 0);
    Ok(())
}

/// Local mode with the embedded broker, and the address of its dashboard.
async fn serve(file: &str, listen: &str) -> Result<(Process, String)> {
    let mut local = start(&[
        "-f",
        file,
        "--embedded-kafka",
        "--max-workers",
        "2",
        "--api-listen",
        listen,
    ])?;
    let line = local.until_prints("dashboard: ").await?;
    let url = line.split_whitespace().nth(1).context("no address")?.to_string();
    Ok((local, url))
}

/// `make demo ARGS=--stay`: its dashboard stays after the summary. The picture is the one of README.md.
async fn the_demo(browser: &Browser) -> Result<()> {
    let records = "60000";
    let mut demo = start(&[
        "--demo",
        "--stay",
        "--demo-records",
        records,
        "--api-listen",
        "127.0.0.1:0",
    ])?;
    let line = demo.until_prints("The demo keeps running: ").await?;
    let url = line.split_whitespace().find(|word| word.starts_with("http"));
    let url = url.context("no address")?.trim_end_matches(';').to_string();
    browser.size(1280, 800).await?;
    browser.open(&format!("{url}groups/shop/orders")).await?;
    browser
        .until(
            "all orders of the demo are shown",
            "document.querySelector('.numbers')?.innerText.includes('60,000') && document.querySelector('.chart canvas')",
        )
        .await?;
    picture(browser, "demo").await?;
    dead_letters(browser, &url).await?;
    demo.interrupt().await?;
    let (code, printed) = demo.end().await?;
    assert_eq!(code, 0, "{printed}");
    Ok(())
}

/// The 600 dead letters of the demo: listed, counted, filtered, one of them opened.
async fn dead_letters(browser: &Browser, url: &str) -> Result<()> {
    println!("dead letters: list, counts, filters, one record");
    browser.size(1280, 1400).await?;
    browser.run("[...document.querySelectorAll('a')].find((it) => it.innerText === 'Look at the dead letters').click()").await?;
    browser
        .until(
            "the newest 50 are listed, and the errors are counted",
            "document.querySelectorAll('[aria-label=Records] tbody tr').length === 50 && document.querySelector('[aria-label=Errors] tbody tr')",
        )
        .await?;
    check_page(browser, "dead-letters").await?;
    browser.run("[...document.querySelectorAll('button')].find((it) => it.innerText === 'Load older ones').click()").await?;
    browser
        .until(
            "50 older ones follow",
            "document.querySelectorAll('[aria-label=Records] tbody tr').length === 100",
        )
        .await?;
    browser
        .open(&format!(
            "{url}groups/shop/orders/dead-letters?stage=decode&search=o-0000"
        ))
        .await?;
    browser
        .until(
            "the filters of the address are in the form, and only matching ones are listed",
            "document.querySelector('select').value === 'decode' && [...document.querySelectorAll('[aria-label=Records] tbody tr')].every((it) => it.innerText.includes('Undecodable, decode, value')) && document.querySelectorAll('[aria-label=Records] tbody tr').length > 0",
        )
        .await?;
    browser
        .run("document.querySelector('[aria-label=Records] tbody button').focus()")
        .await?;
    browser.key(keys::ENTER).await?;
    browser
        .until(
            "the dialog shows the error and the value",
            "document.querySelector('dialog')?.open && document.querySelector('dialog .error')?.innerText.length > 5 && document.querySelector('dialog pre[aria-label=Value]')?.innerText.includes('o-0')",
        )
        .await?;
    assert_eq!(
        browser.run("return location.search.includes('record=')").await?,
        true
    );
    axe(browser, "a dead letter").await?;
    picture(browser, "dead-letter").await?;
    browser
        .run("[...document.querySelectorAll('dialog button')].filter((it) => it.innerText === 'Bytes').pop().click()")
        .await?;
    browser
        .until(
            "the bytes are shown",
            "document.querySelector('dialog pre[aria-label=Value]').innerText.startsWith('000000  ')",
        )
        .await?;
    browser.key(keys::ESCAPE).await?;
    browser
        .until(
            "the focus is back on the record",
            "!document.querySelector('dialog') && document.activeElement.closest('[aria-label=Records] tbody') && !location.search.includes('record=')",
        )
        .await?;
    Ok(())
}

/// A table of 5,000 groups draws only the rows that can be seen.
async fn five_thousand_groups(browser: &Browser, url: &str) -> Result<()> {
    browser.open(url).await?;
    browser
        .until("the page has started", "document.querySelector('main.live')")
        .await?;
    let drawn = browser
        .run(
            "const {html, render} = await import('/ui/html.js');
             const {Groups} = await import('/ui/groups.js');
             const response = await fetch('/api/v1/groups');
             const one = (await response.json()).items[0];
             const groups = {};
             for (let i = 0; i < 5000; i++) groups[`shop/g${i}`] = {...one, namespace: 'shop', name: `g${i}`, lag: i};
             const place = document.createElement('div');
             document.body.replaceChildren(place);
             const started = performance.now();
             render(html`<${Groups} live=${{status: 'live', groups, receivedAt: Date.now()}} />`, place);
             const took = performance.now() - started;
             return [place.querySelectorAll('tbody tr').length, place.querySelector('dd').innerText, took];",
        )
        .await?;
    println!("  5,000 groups: {} ms until they are in the page", drawn[2]);
    assert!(drawn[0].as_u64().is_some_and(|rows| rows < 150), "{drawn}");
    assert_eq!(drawn[1], "5,000");
    Ok(())
}

/// Both themes and a narrow page: pictures, no violation, no horizontal scroll bar.
async fn check_page(browser: &Browser, name: &str) -> Result<()> {
    for theme in ["light", "dark"] {
        browser.theme(theme).await?;
        axe(browser, &format!("{name}, {theme}")).await?;
        picture(browser, &format!("{name}-{theme}")).await?;
    }
    browser.size(320, 900).await?;
    let widths = browser
        .run("return [document.documentElement.scrollWidth, innerWidth]")
        .await?;
    assert!(
        widths[0].as_u64() <= widths[1].as_u64(),
        "{name} is too wide: {widths}"
    );
    axe(browser, &format!("{name}, narrow")).await?;
    picture(browser, &format!("{name}-narrow")).await?;
    browser.theme("light").await?;
    browser.size(1280, 1400).await
}

/// Fails on each violation that axe-core finds.
pub async fn axe(browser: &Browser, what: &str) -> Result<()> {
    let loaded = browser.run("return typeof axe").await?;
    if loaded == "undefined" {
        browser
            .run(&format!("{AXE}\nwindow.axe = axe;"))
            .await
            .context("axe-core")?;
    }
    let found = browser
        .run("const result = await axe.run(document); return result.violations.map((it) => [it.id, it.help, it.nodes.map((node) => node.html).slice(0, 3)])")
        .await?;
    assert_eq!(found, json!([]), "axe-core, {what}: {found:#}");
    Ok(())
}

/// Presses Tab until the button with this label has the focus.
async fn tab_to(browser: &Browser, label: &str) -> Result<()> {
    for _ in 0..40 {
        browser.key(keys::TAB).await?;
        let focus: Value = browser.run("return document.activeElement.innerText").await?;
        if focus == label {
            return Ok(());
        }
    }
    anyhow::bail!("Tab does not reach the button {label}")
}

pub async fn picture(browser: &Browser, name: &str) -> Result<()> {
    browser.screenshot(&pictures()?.join(format!("{name}.png"))).await
}

fn pictures() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("no target folder")?;
    Ok(Path::new(target).join("dashboard"))
}
