//! Routes that read, the document, and the pages.

use serde_json::Value;

use super::Server;

#[tokio::test]
async fn groups_and_their_parts_are_served() {
    let server = Server::start().await;
    let (status, list) = server.get("/api/v1/groups?sort=name").await;
    assert_eq!((status, list["total"].as_u64()), (200, Some(2)));
    assert_eq!(list["items"][0]["name"], "bills");
    assert_eq!(list["items"][0]["donePerSecond"], Value::Null, "unknown is not 0");
    assert_eq!(
        list["items"][0]["unknown"]["donePerSecond"],
        "measured for less than a second"
    );
    let (_, one) = server.get("/api/v1/groups/shop/orders").await;
    assert_eq!(
        (&one["desiredState"], &one["ready"]),
        (&"Running".into(), &"True".into())
    );
    assert_eq!(one["conditions"][0]["type"], "Ready");
    let (_, partitions) = server.get("/api/v1/groups/shop/orders/partitions").await;
    assert_eq!(partitions["items"][0]["topic"], "orders");
    assert_eq!(
        server.get("/api/v1/groups/shop/orders/workers").await.1["items"],
        Value::Array(vec![])
    );
    let (_, points) = server
        .get("/api/v1/groups/shop/orders/series?metric=lag,in")
        .await;
    assert_eq!(
        (&points["lag"], points.get("done")),
        (&serde_json::json!([0.0]), None)
    );
    let (_, version) = server.get("/api/v1/version").await;
    assert_eq!(version["role"], "local");
    let (_, me) = server.get("/api/v1/me?group=shop/orders").await;
    assert_eq!(
        (
            &me["user"],
            &me["actions"]["state"]["allowed"],
            &me["actions"]["scale"]["allowed"]
        ),
        (&Value::Null, &true.into(), &false.into())
    );
}

#[tokio::test]
async fn every_wrong_request_is_a_problem_that_says_what_to_send() {
    let server = Server::start().await;
    let many = format!("/api/v1/watch?groups={}", ["shop/orders"; 21].join(","));
    for (path, status, reason, part) in [
        (
            "/api/v1/groups/shop/nothing",
            404,
            "GroupNotFound",
            "GET /api/v1/groups",
        ),
        ("/api/v1/groups/shop/%ff", 400, "InvalidPath", "NAMESPACE/NAME"),
        ("/api/v1/me?group=orders", 400, "InvalidQuery", "NAMESPACE/NAME"),
        ("/api/v1/me?group=shop/a_b", 400, "InvalidQuery", "DNS subdomain"),
        ("/api/v1/groups?namespace=Shop", 400, "InvalidQuery", "DNS label"),
        ("/api/v1/groups/a%2Fb/orders", 400, "InvalidPath", "DNS label"),
        (
            "/api/v1/groups/shop/orders%3Fa/events",
            400,
            "InvalidPath",
            "DNS subdomain",
        ),
        (
            "/api/v1/groups/shop/nothing/workers",
            404,
            "GroupNotFound",
            "shop/nothing",
        ),
        (
            "/api/v1/groups/shop/nothing/series",
            404,
            "GroupNotFound",
            "shop/nothing",
        ),
        ("/api/v1/nothing", 404, "RouteNotFound", "/docs"),
        ("/nothing", 404, "RouteNotFound", "/docs"),
        ("/api/v1/groups?limt=1", 400, "InvalidQuery", "limt"),
        ("/api/v1/groups?limit=many", 400, "InvalidQuery", "invalid digit"),
        (
            "/api/v1/groups/shop/orders/series?step=7",
            400,
            "InvalidQuery",
            "15, 60 or 900",
        ),
        (
            "/api/v1/groups/shop/orders/series?since=today",
            400,
            "InvalidQuery",
            "2026-",
        ),
        (
            "/api/v1/groups/shop/orders/series?metric=cpu",
            400,
            "InvalidQuery",
            "replicas",
        ),
        (
            "/api/v1/watch?groups=orders",
            400,
            "InvalidQuery",
            "NAMESPACE/NAME",
        ),
        (
            "/api/v1/watch?groups=shop/orders,shop/",
            400,
            "InvalidQuery",
            "DNS subdomain",
        ),
        (many.as_str(), 400, "InvalidQuery", "there are 21 groups"),
    ] {
        let (code, headers, body) = server.send("GET", path, "", "").await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (code, problem["reason"].as_str()),
            (status, Some(reason)),
            "{path}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(part),
            "{path}: {problem}"
        );
        assert!(headers.contains("application/problem+json"), "{path}");
    }
    let (code, _, body) = server
        .send(
            "PUT",
            "/api/v1/groups",
            "Content-Type: application/json\r\n",
            "{}",
        )
        .await;
    assert!(code == 405 && body.contains("MethodNotAllowed"), "{code} {body}");
}

#[tokio::test]
async fn all_answers_carry_the_security_headers() {
    let server = Server::start().await;
    for path in [
        "/",
        "/groups/shop/orders",
        "/api/v1/groups",
        "/nothing",
        "/docs/",
        "/ui/app.js",
    ] {
        let (_, headers, _) = server.send("GET", path, "", "").await;
        for part in [
            "content-security-policy: default-src 'self'; script-src 'self';",
            "nosniff",
            "no-referrer",
        ] {
            assert!(headers.contains(part), "{path}: {headers}");
        }
        assert_eq!(headers.contains("unsafe-inline"), path == "/docs/", "{path}");
    }
    let (status, _, page) = server.send("GET", "/docs/", "", "").await;
    assert!(status == 200 && page.contains("swagger-ui"), "{page}");
}

#[tokio::test]
async fn the_document_describes_every_route() {
    let server = Server::start().await;
    let (_, document) = server.get("/api/v1/openapi.json").await;
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/api/v1/groups",
            "/api/v1/groups/{namespace}/{name}",
            "/api/v1/groups/{namespace}/{name}/dead-letters",
            "/api/v1/groups/{namespace}/{name}/dead-letters/{partition}/{offset}",
            "/api/v1/groups/{namespace}/{name}/events",
            "/api/v1/groups/{namespace}/{name}/offset-resets",
            "/api/v1/groups/{namespace}/{name}/offset-resets/{reset}",
            "/api/v1/groups/{namespace}/{name}/partitions",
            "/api/v1/groups/{namespace}/{name}/restart",
            "/api/v1/groups/{namespace}/{name}/scale",
            "/api/v1/groups/{namespace}/{name}/series",
            "/api/v1/groups/{namespace}/{name}/state",
            "/api/v1/groups/{namespace}/{name}/workers",
            "/api/v1/me",
            "/api/v1/version",
            "/api/v1/watch",
        ]
    );
    let text = include_str!("../../../../docs/api.md");
    for path in paths {
        assert!(
            text.contains(path.as_str()),
            "docs/api.md does not describe {path}"
        );
    }
}
