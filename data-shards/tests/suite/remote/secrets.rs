//! Credentials stay where they are.

use super::child::Task;
use super::server::{Server, Trick};
use super::{Shard, files};

const USER: &str = "alice-the-user";
const PASSWORD: &str = "pa55/w:rd?#@x";
const ESCAPED: &str = "pa55%2Fw:rd%3F%23%40x";
const SIGNATURE: &str = "53cr3t51gn";
/// `USER:PASSWORD` in base64.
const BASIC: &str = "YWxpY2UtdGhlLXVzZXI6cGE1NS93OnJkPyNAeA==";

#[test]
fn credentials_reach_the_server_and_nothing_else() {
    let shards = Shard::several(1, 300_000);
    let server = Server::new(shards.iter().map(Shard::file));
    server.manners(|manners| manners.authorization = Some(format!("Basic {BASIC}")));
    let cache = tempfile::tempdir().unwrap();
    let url = format!("http://{USER}:{ESCAPED}@127.0.0.1:{}/set/?X-Sig={SIGNATURE}&v=1", server.port);
    let run = |tricks: &[Trick], stubborn: Option<Trick>| {
        server.trick(tricks.iter().copied());
        *server.state.stubborn.lock().unwrap() = stubborn;
        let task = Task { url: &url, cache: cache.path(), limit: None, threads: 2, hold: 0, shards: &shards };
        let output = task.start().wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        for secret in [USER, PASSWORD, ESCAPED, SIGNATURE, BASIC, "pa55"] {
            assert!(!text.contains(secret), "{secret} in: {text}");
        }
        text
    };
    for status in [401, 403, 404, 400, 301, 503] {
        let text = run(&[], Some(Trick::Status(status)));
        assert!(text.contains("ERROR") && text.contains("/set/train-000000.tar?***: "), "{text}");
    }
    assert!(run(&[], Some(Trick::Flip)).contains("SHA-256"));
    let text = run(&[Trick::Cut(100_000), Trick::Status(500), Trick::Status(416)], None);
    assert!(text.contains("DONE") && !text.contains("ERROR") && text.contains("TRACE"), "{text}");
    let last = server.requests("train-000000.tar").pop().unwrap();
    assert_eq!((last.status, last.path), (200, format!("/set/train-000000.tar?X-Sig={SIGNATURE}&v=1")));
    for (name, _) in files(cache.path()) {
        assert!(!name.contains(USER) && !name.contains(SIGNATURE));
    }
    drop(server);
    let cache = tempfile::tempdir().unwrap();
    let task = Task { url: &url, cache: cache.path(), limit: None, threads: 2, hold: 0, shards: &shards };
    let output = task.start().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("not reachable: 5 attempts"), "{text}");
    assert!([USER, "pa55", SIGNATURE, BASIC].iter().all(|secret| !text.contains(secret)), "{text}");
}
