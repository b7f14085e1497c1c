const { boolean, integer, numeric, pgTable, serial, text, timestamp } = require("drizzle-orm/pg-core");

const cars = pgTable("cars", { id: serial().primaryKey(), plate: text().notNull().unique(), price: numeric({ precision: 8, scale: 2 }), sold: boolean() });
const rentals = pgTable("rentals", { id: serial().primaryKey(), car: integer().notNull().references(() => cars.id), begins: timestamp().defaultNow() });
module.exports = { cars, rentals };
