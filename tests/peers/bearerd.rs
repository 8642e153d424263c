//! A real `bearerd run`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// A new API key in a keys file.
pub fn new_key(keys_file: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["keys", "new", "--keys-file"]).arg(keys_file).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A bearerd that ends with the test.
pub struct Bearerd {
    process: Child,
    pub callers: String,
    pub metrics: String,
    pub admin: String,
    /// Open for as long as it runs, or its next line would end it.
    stderr: BufReader<ChildStderr>,
}

impl Bearerd {
    /// Starts `bearerd run` with this configuration, in which every port should be 0 and logs JSON.
    pub fn start(folder: &Path, configuration: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_bearerd")), folder, configuration)
    }

    /// The same by a command that runs the binary in surroundings of its own, or with more variables.
    pub fn start_by(mut command: Command, folder: &Path, configuration: &str) -> Self {
        let file = folder.join("bearerd.yaml");
        std::fs::write(&file, configuration).unwrap();
        let mut process = command.args(["run", "-c"]).arg(file).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let (mut line, mut said) = (String::new(), serde_json::Value::Null);
        while said["message"] != "listening" {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it listened");
            said = serde_json::from_str(&line).unwrap();
        }
        let callers = said["callers"].as_str().unwrap().trim_matches(['[', ']']).to_owned();
        let address = |name: &str| said[name].as_str().unwrap().to_owned();
        Self { process, callers, metrics: address("metrics"), admin: address("admin"), stderr }
    }

    /// Reads its log until a line has this.
    pub fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "it ended before it said `{wanted}`");
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Bearerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks it: status line and headers, and the body.
pub fn get(address: &str, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}
