
-- Installed by `reprieve protect --apply` for a strict system; `--remove` takes it away.
-- What the open transaction replaced, for Reprieve alone: the ticket is made of this transaction's number and a secret that agents can't
-- read, so that it is worth nothing in another transaction. More than `most` bytes are only counted.
DECLARE
  mine xid8 := pg_current_xact_id_if_assigned();
  wanted text;
  bytes int8;
BEGIN
  SELECT encode(sha256(convert_to(concat(s.secret, ':', mine, ':', s.secret), 'UTF8')), 'hex') INTO STRICT wanted FROM reprieve.seal s;
  IF (mine IS NOT NULL AND ticket = wanted) IS NOT TRUE THEN
    RAISE EXCEPTION 'what a transaction replaced is not for its session to read';
  END IF;
  SELECT COALESCE(sum(64 + COALESCE(octet_length(j.old), 0) + COALESCE(octet_length(j.new), 0)), 0) INTO bytes FROM reprieve.journal j WHERE j.xid = mine;
  IF bytes <= most THEN
    RETURN QUERY SELECT j.xid, j.statement, j.relation, j.old, j.new FROM reprieve.journal j WHERE j.xid = mine;
  ELSE
    RETURN QUERY SELECT mine, 0::int8, 0::oid, bytes::text, NULL::text;
  END IF;
END
