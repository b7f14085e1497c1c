SELECT 'relation'::pg_catalog.text AS kind, n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name,
  pg_catalog.concat_ws(' ', c.oid, c.relkind, c.relpersistence, c.reltuples,
    c.relrowsecurity, c.relhasrules,
    c.relhassubclass AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS f
      ON f.oid OPERATOR(pg_catalog.=) i.inhrelid WHERE f.relkind OPERATOR(pg_catalog.=) 'f'::"char")) AS extra
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,S,f}'::"char"[])
  AND NOT (n.nspname OPERATOR(pg_catalog.=) 'pg_toast'::pg_catalog.name)
UNION ALL
SELECT DISTINCT 'function', n.nspname::pg_catalog.text, p.proname::pg_catalog.text, NULL::pg_catalog.text
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE p.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND NOT (l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}'::pg_catalog.name[])
    AND p.prokind OPERATOR(pg_catalog.=) 'f'::"char" AND NOT (p.provolatile OPERATOR(pg_catalog.=) 'v'::"char"))
UNION ALL
SELECT DISTINCT 'operator', n.nspname::pg_catalog.text, o.oprname::pg_catalog.text, NULL
FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
  LEFT JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
  LEFT JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE o.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND (l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}'::pg_catalog.name[])
    AND NOT (p.provolatile OPERATOR(pg_catalog.=) 'v'::"char")) IS NOT TRUE
UNION ALL
SELECT 'type', n.nspname::pg_catalog.text, t.typname::pg_catalog.text, NULL
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
WHERE t.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND (t.typtype OPERATOR(pg_catalog.=) ANY ('{d,r,m,p}'::"char"[])
    OR EXISTS (SELECT FROM pg_catalog.pg_type AS e
      WHERE e.oid OPERATOR(pg_catalog.=) t.typelem AND e.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
        AND NOT (e.typtype OPERATOR(pg_catalog.=) 'e'::"char")
        AND NOT (e.typtype OPERATOR(pg_catalog.=) 'b'::"char" AND e.typelem OPERATOR(pg_catalog.=) '0'::pg_catalog.oid))
    OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS e ON e.oid OPERATOR(pg_catalog.=) a.atttypid
      WHERE t.typtype OPERATOR(pg_catalog.=) 'c'::"char" AND a.attrelid OPERATOR(pg_catalog.=) t.typrelid
        AND e.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
        AND NOT (e.typtype OPERATOR(pg_catalog.=) 'e'::"char")
        AND NOT (e.typtype OPERATOR(pg_catalog.=) 'b'::"char" AND e.typelem OPERATOR(pg_catalog.=) '0'::pg_catalog.oid)))
UNION ALL
SELECT 'enum', n.nspname::pg_catalog.text, t.typname::pg_catalog.text, NULL
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
WHERE t.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid AND t.typtype OPERATOR(pg_catalog.=) 'e'::"char"
UNION ALL
(SELECT 'implicit', NULL, 'cast', NULL
FROM pg_catalog.pg_cast AS c JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
  JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND NOT (l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}'::pg_catalog.name[])) LIMIT 1)
UNION ALL
(SELECT 'implicit', NULL, 'operator class', NULL
FROM pg_catalog.pg_amproc AS a JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) a.amproc::pg_catalog.oid
  JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE a.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND NOT (l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}'::pg_catalog.name[])) LIMIT 1)
UNION ALL
(SELECT 'deferrable', NULL, NULL, NULL FROM pg_catalog.pg_trigger AS t WHERE t.tgdeferrable LIMIT 1)
UNION ALL
SELECT 'reference', NULL, k.confrelid::pg_catalog.text, pg_catalog.concat_ws(' ', k.conrelid::pg_catalog.oid, k.confdeltype)
FROM pg_catalog.pg_constraint AS k WHERE k.contype OPERATOR(pg_catalog.=) 'f'::"char"
UNION ALL
SELECT DISTINCT 'reader', NULL, d.refobjid::pg_catalog.text, r.ev_class::pg_catalog.text
FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_rewrite AS r ON r.oid OPERATOR(pg_catalog.=) d.objid
WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid
  AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
  AND d.deptype OPERATOR(pg_catalog.=) 'n'::"char" AND r.ev_type OPERATOR(pg_catalog.=) '1'::"char"
  AND d.refobjid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid AND NOT (d.refobjid OPERATOR(pg_catalog.=) r.ev_class)
UNION ALL
SELECT 'part', NULL, i.inhparent::pg_catalog.text, i.inhrelid::pg_catalog.text
FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
WHERE c.relispartition AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f}'::"char"[])
UNION ALL
SELECT 'limit', NULL, pg_catalog.max(c.oid)::pg_catalog.text, NULL FROM pg_catalog.pg_class AS c
