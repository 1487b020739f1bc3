-- Format 1. A later format is a file of its own that alters this one.

CREATE TABLE responses (
    number INTEGER PRIMARY KEY,
    owner BLOB NOT NULL,
    id TEXT, -- NULL: gone, but for the items that others go on from
    parent INTEGER REFERENCES responses (number), -- has the first `inherited` items, itself or by its own parents
    previous TEXT,
    conversation TEXT,
    inherited INTEGER NOT NULL,
    outputs INTEGER NOT NULL,
    items INTEGER NOT NULL, -- how many there are in the whole context
    created_unix_ms INTEGER NOT NULL,
    item_bytes INTEGER NOT NULL, -- of its rows in `items`
    other_bytes INTEGER NOT NULL -- of all else: body, request, journal
) STRICT;
CREATE UNIQUE INDEX responses_by_id ON responses (owner, id) WHERE id IS NOT NULL;
CREATE INDEX responses_by_parent ON responses (parent) WHERE parent IS NOT NULL;
CREATE INDEX responses_by_age ON responses (created_unix_ms) WHERE id IS NOT NULL;

-- The response objects: apart, so that the walk along the parents reads small rows.
CREATE TABLE bodies (
    response INTEGER PRIMARY KEY REFERENCES responses (number) ON DELETE CASCADE,
    json BLOB NOT NULL
) STRICT;

-- Each response's own, in the order of their numbers; if it has no parent, its whole context.
CREATE TABLE items (
    number INTEGER PRIMARY KEY,
    response INTEGER NOT NULL REFERENCES responses (number) ON DELETE CASCADE,
    is_own INTEGER NOT NULL, -- 0 for one that the response inherited, but from nobody who is here
    id TEXT,
    kind TEXT,
    json BLOB NOT NULL
) STRICT;
CREATE INDEX items_by_response ON items (response);
CREATE INDEX items_by_id ON items (id) WHERE id IS NOT NULL AND is_own = 1;

CREATE TABLE jobs (
    response INTEGER PRIMARY KEY REFERENCES responses (number) ON DELETE CASCADE,
    state INTEGER NOT NULL, -- 0 queued, 1 in progress, 2 finished
    is_cancelled INTEGER NOT NULL,
    request BLOB -- until it has finished
) STRICT;
CREATE INDEX jobs_unfinished ON jobs (response) WHERE state < 2;

CREATE TABLE events (
    response INTEGER NOT NULL REFERENCES jobs (response) ON DELETE CASCADE,
    sequence_number INTEGER NOT NULL,
    json BLOB NOT NULL,
    PRIMARY KEY (response, sequence_number)
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    number INTEGER PRIMARY KEY,
    owner BLOB NOT NULL,
    id TEXT NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    changed_unix_ms INTEGER NOT NULL,
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    tip INTEGER REFERENCES responses (number) ON DELETE SET NULL, -- whose context is all items, as long as they are
    metadata BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX conversations_by_id ON conversations (owner, id);
CREATE INDEX conversations_by_age ON conversations (changed_unix_ms);
CREATE INDEX conversations_by_tip ON conversations (tip) WHERE tip IS NOT NULL;

CREATE TABLE conversation_items (
    number INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversations (number) ON DELETE CASCADE,
    id TEXT,
    kind TEXT,
    json BLOB NOT NULL
) STRICT;
CREATE INDEX conversation_items_by_conversation ON conversation_items (conversation);

CREATE TABLE usage (
    number INTEGER PRIMARY KEY,
    unix_ms INTEGER NOT NULL,
    owner BLOB NOT NULL,
    response_id TEXT NOT NULL,
    model TEXT NOT NULL,
    tier TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_by_time ON usage (unix_ms);
