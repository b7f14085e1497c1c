const { pgTable, serial, text } = require("drizzle-orm/pg-core");

module.exports = { cars: pgTable("cars", { id: serial().primaryKey(), plate: text().notNull().unique() }) };
