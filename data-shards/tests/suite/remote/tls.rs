//! A server that is to be trusted, or not.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::Shard;
use super::child::{Task, end};
use super::s3::python;

/// Serves a folder by https, with a certificate that it makes in another one, and prints its port.
const SERVE: &str = r#"
import sys, ssl, datetime, ipaddress, functools, http.server
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
folder, keys = sys.argv[1:]
def make(subject, issuer, issuer_key, key, *extensions):
    name = lambda text: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=30))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
open(keys + "/root.pem", "wb").write(make("root", "root", root_key, root_key, x509.BasicConstraints(True, None)))
open(keys + "/cert.pem", "wb").write(make("server", "root", root_key, key,
    x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])))
open(keys + "/key.pem", "wb").write(key.private_bytes(serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(keys + "/cert.pem", keys + "/key.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
    functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder))
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn https_asks_for_a_certificate_that_is_known() {
    let Some(python) = python("https_asks_for_a_certificate_that_is_known") else { return };
    let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shards = Shard::several(1, 100_000);
    std::fs::write(folder.path().join(&shards[0].name), &shards[0].bytes).unwrap();
    let mut server = Command::new(python);
    server.args(["-c", SERVE]).args([folder.path(), keys.path()]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(server.spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let (url, cache) = (format!("https://127.0.0.1:{}", port.trim()), tempfile::tempdir().unwrap());
    let task = Task { url: &url, cache: cache.path(), limit: None, threads: 1, hold: 0, shards: &shards };
    let said = end(task.start());
    assert!(said.contains("not reachable: 5 attempts") && said.contains("certificate"), "{said}");
    let known = task.command().env("SSL_CERT_FILE", keys.path().join("root.pem")).spawn().unwrap();
    let said = end(known);
    assert!(said.contains("DONE") && !said.contains("ERROR"), "{said}");
}
