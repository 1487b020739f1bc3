//! Responses of HTTP/1.1 as upstreams send them, and ways of damaging them.

use super::chance::Chance;

pub struct Response {
    pub name: &'static str,
    pub stream: &'static str,
    pub status: u16,
    pub body: &'static str,
    pub reusable: bool,
    /// Bytes behind the response.
    pub rest: &'static str,
}

const fn good(name: &'static str, stream: &'static str, status: u16, body: &'static str) -> Response {
    Response { name, stream, status, body, reusable: true, rest: "" }
}

const fn last(name: &'static str, stream: &'static str, status: u16, body: &'static str) -> Response {
    Response { name, stream, status, body, reusable: false, rest: "" }
}

pub const RESPONSES: &[Response] = &[
    good("length", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\ncontent-type: text/plain\r\n\r\nGrüße", 200, "Grüße"),
    good("length 0", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, ""),
    good(
        "chunked",
        "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5, max=100\r\nTransfer-Encoding: chunked\r\n\r\n\
         9\r\ndata: {}\n\r\n01\r\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
        200,
        "data: {}\n\ndata: [DONE]\n\n",
    ),
    good(
        "chunked with extensions and trailers",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\nA;a=\"b\";c \r\n0123456789\r\n1 \t\r\nx\r\n2 ;q\r\nyz\r\n00;last\r\nX-Sum: 1\r\nb:\r\n\r\n",
        200,
        "0123456789xyz",
    ),
    good("no body of 204", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
    good("no body of 304", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, ""),
    last("204 with a length", "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204, ""),
    last("204 with a coding", "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", 204, ""),
    last("304 with a coding", "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", 304, ""),
    good(
        "after interim responses",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-length: 3\r\n\r\n\
         HTTP/1.1 429 Slow Down\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}",
        429,
        "{}",
    ),
    last("until close", "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\nto the end", 200, "to the end"),
    last("until close with nothing", "HTTP/1.1 500 Oops\r\n\r\n", 500, ""),
    last("told to close", "HTTP/1.1 200 OK\r\nConnection: Close\r\ncontent-length: 1\r\n\r\nx", 200, "x"),
    last(
        "told to close in a list",
        "HTTP/1.1 200 OK\r\nConnection: x, close\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx",
        200,
        "x",
    ),
    last("of 1.0", "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, "x"),
    good("of 1.0 and kept", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 1\r\n\r\nx", 200, "x"),
    last(
        "length and chunked: chunked it is",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        200,
        "x",
    ),
    good("the same length twice", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1, 1\r\n\r\nx", 200, "x"),
    good("line ends of LF", "HTTP/1.1 200 OK\ncontent-length: 1\n\nx", 200, "x"),
    good("mixed line ends", "HTTP/1.1 200 OK\r\ncontent-length: 1\n\r\nx", 200, "x"),
    good("no reason", "HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx", 200, "x"),
    good("a status of its own", "HTTP/1.1 999 Denied\r\ncontent-length: 1\r\n\r\nx", 999, "x"),
    Response {
        name: "followed by another",
        stream: "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n",
        status: 200,
        body: "x",
        reusable: true,
        rest: "HTTP/1.1 200 OK\r\n\r\n",
    },
    Response {
        name: "chunked and followed by a line end",
        stream: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\r\n",
        status: 200,
        body: "",
        reusable: true,
        rest: "\r\n",
    },
];

pub fn response(name: &str) -> &'static Response {
    RESPONSES.iter().find(|response| response.name == name).unwrap_or_else(|| panic!("no response {name}"))
}

/// One of the responses, or the beginning of one and the end of another, with up to three places changed.
pub fn damaged(chance: &mut Chance) -> Vec<u8> {
    const PIECES: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        " ",
        "\t",
        ":",
        ";",
        ",",
        "0",
        "1",
        "5",
        "f",
        "x",
        "\0",
        "é",
        "content-length: 1\r\n",
        "transfer-encoding: chunked\r\n",
        "connection: close\r\n",
        "connection: keep-alive\r\n",
        "0\r\n\r\n",
        "1\r\nx\r\n",
        "chunked",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.0",
        "ffffffffffffffff",
    ];
    let pick = |chance: &mut Chance| RESPONSES[chance.below(RESPONSES.len())].stream.as_bytes();
    let mut stream = pick(chance).to_vec();
    if chance.below(4) == 0 {
        let other = pick(chance);
        stream.truncate(chance.below(stream.len() + 1));
        stream.extend_from_slice(&other[chance.below(other.len())..]);
    }
    for _ in 0..chance.below(4) {
        let at = chance.below(stream.len() + 1);
        let gone = chance.below(3).min(stream.len() - at);
        let piece = if chance.below(3) == 0 { "" } else { PIECES[chance.below(PIECES.len())] };
        stream.splice(at..at + gone, piece.bytes());
    }
    stream
}
