// Two migrations as TypeORM writes them.
require("reflect-metadata");
const { DataSource } = require("typeorm");

class First1700000000001 {
  name = "First1700000000001";
  async up(runner) {
    await runner.query(`CREATE TABLE "car" ("id" SERIAL NOT NULL, "plate" character varying NOT NULL, CONSTRAINT "PK_car" PRIMARY KEY ("id"))`);
    await runner.query(`CREATE TYPE "public"."rental_state_enum" AS ENUM('open', 'closed')`);
    await runner.query(`CREATE TABLE "rental" ("id" SERIAL NOT NULL, "state" "public"."rental_state_enum" NOT NULL DEFAULT 'open', "carId" integer, CONSTRAINT "PK_rental" PRIMARY KEY ("id"))`);
    await runner.query(`ALTER TABLE "rental" ADD CONSTRAINT "FK_rental_car" FOREIGN KEY ("carId") REFERENCES "car"("id") ON DELETE NO ACTION ON UPDATE NO ACTION`);
  }
  async down(runner) {
    await runner.query(`ALTER TABLE "rental" DROP CONSTRAINT "FK_rental_car"`);
    await runner.query(`DROP TABLE "rental"`);
    await runner.query(`DROP TYPE "public"."rental_state_enum"`);
    await runner.query(`DROP TABLE "car"`);
  }
}

class More1700000000002 {
  name = "More1700000000002";
  async up(runner) {
    await runner.query(`ALTER TABLE "car" ADD "colour" character varying`);
    await runner.query(`CREATE INDEX "IDX_car_plate" ON "car" ("plate")`);
  }
  async down(runner) {
    await runner.query(`DROP INDEX "public"."IDX_car_plate"`);
    await runner.query(`ALTER TABLE "car" DROP COLUMN "colour"`);
  }
}

module.exports = new DataSource({ type: "postgres", url: process.env.DATABASE_URL, migrations: [First1700000000001, More1700000000002] });
